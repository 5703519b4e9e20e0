"""How DensePose goes from a picture to people's boxes, and from one box to a body-part map.

Steps and numbers are those of the DensePose inference specification, sections 2 to 8. Boxes, scores and thresholds are
float32 whatever type the network runs in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from fastfit_watch.engine.parsers.densepose_boxes import (
    choose_levels,
    clip_boxes,
    decode_boxes,
    grid_anchors,
    has_area,
    roi_align,
    suppress_overlaps,
    suppress_within_groups,
)
from fastfit_watch.engine.parsers.densepose_network import BODY_BINS, BOX_BINS, DensePoseNetwork

MEAN_BGR = (103.53, 116.28, 123.675)
PADDING_MULTIPLE = 32
STRIDES_PX = (4, 8, 16, 32, 64)
ANCHOR_SIZES_PX = (32, 64, 128, 256, 512)
PROPOSALS_PER_LEVEL = 1000
PROPOSALS = 1000
PROPOSAL_IOU = 0.7
PROPOSAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
PERSON_IOU = 0.5
PERSON_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
PEOPLE = 100


@dataclass(frozen=True)
class DetectorSettings:
    """Working size of the detector and how sure it must be (0..1, exclusive) that a box holds a person."""

    shortest_side_px: int = 800
    longest_side_px: int = 1333
    score_threshold: float = 0.8


@dataclass(frozen=True)
class Proposals:
    """Paths worth a closer look, best first: `boxes` float32 (n, 4), `logits` float32 (n,)."""

    boxes: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class People:
    """People found, surest first: `boxes` float32 (n, 4), `scores` float32 (n,) in 0..1."""

    boxes: torch.Tensor
    scores: torch.Tensor


def working_size(size: tuple[int, int], settings: DetectorSettings) -> tuple[int, int]:
    """Size (height, width) at which the detector looks at a picture of `size`."""
    scale = settings.shortest_side_px / min(size)
    height, width = size[0] * scale, size[1] * scale
    # The short side is set, not multiplied: 800 must not become 799.9 by rounding.
    if size[0] < size[1]:
        height = float(settings.shortest_side_px)
    else:
        width = float(settings.shortest_side_px)
    if max(height, width) > settings.longest_side_px:
        shrink = settings.longest_side_px / max(height, width)
        height, width = height * shrink, width * shrink
    return int(height + 0.5), int(width + 0.5)


def resize_picture(image_bgr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (H, W, 3) with Pillow's bilinear filter, which antialiases, as the original does."""
    resized = Image.fromarray(image_bgr).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(resized)


def normalise_picture(image_bgr: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (H, W, 3) BGR to float32 (1, 3, H', W'): mean taken off, then zeros up to multiples of 32."""
    pixels = torch.from_numpy(image_bgr).to(device).permute(2, 0, 1).float()
    pixels = pixels - pixels.new_tensor(MEAN_BGR)[:, None, None]
    height, width = image_bgr.shape[:2]
    return functional.pad(pixels, (0, -width % PADDING_MULTIPLE, 0, -height % PADDING_MULTIPLE))[None]


def propose(network: DensePoseNetwork, pyramid: Sequence[torch.Tensor], size: tuple[int, int]) -> Proposals:
    """Region proposals for one picture of unpadded `size` (height, width) from its pyramid p2..p6."""
    boxes, logits, levels = [], [], []
    for level, features in enumerate(pyramid):
        level_logits, level_deltas = network.proposal_generator.rpn_head(features)
        level_logits = level_logits[0].permute(1, 2, 0).flatten().float()
        level_deltas = level_deltas[0].permute(1, 2, 0).reshape(-1, 4).float()
        # A stable sort, not topk: equal logits occur, and must come out in the same order every time.
        best = level_logits.argsort(descending=True, stable=True)[:PROPOSALS_PER_LEVEL]
        grid = (features.shape[2], features.shape[3])
        anchors = grid_anchors(ANCHOR_SIZES_PX[level], STRIDES_PX[level], grid, features.device)
        boxes.append(decode_boxes(anchors[best], level_deltas[best], PROPOSAL_WEIGHTS))
        logits.append(level_logits[best])
        levels.append(torch.full_like(best, level))
    return choose_proposals(torch.cat(boxes), torch.cat(logits), torch.cat(levels), size)


def choose_proposals(
    boxes: torch.Tensor, logits: torch.Tensor, levels: torch.Tensor, size: tuple[int, int]
) -> Proposals:
    """Clip candidates (n, 4) to the picture, drop unusable and overlapping ones, keep the best 1000."""
    clipped = clip_boxes(boxes, size)
    usable = boxes.isfinite().all(dim=1) & logits.isfinite() & has_area(clipped)
    boxes, logits, levels = clipped[usable], logits[usable], levels[usable]
    kept = suppress_within_groups(boxes, logits, levels, PROPOSAL_IOU)[:PROPOSALS]
    return Proposals(boxes[kept], logits[kept])


def score_boxes(
    network: DensePoseNetwork, pyramid: Sequence[torch.Tensor], boxes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 (n, 2), person first, and box deltas float32 (n, 4) for proposals (n, 4)."""
    maps = [features[0] for features in pyramid[:4]]
    pooled = roi_align(maps, STRIDES_PX[:4], boxes, choose_levels(boxes), BOX_BINS)
    logits, deltas = network.roi_heads.box_predictor(network.roi_heads.box_head(pooled))
    return logits.float(), deltas.float()


def choose_people(boxes: torch.Tensor, scores: torch.Tensor, score_threshold: float) -> torch.Tensor:
    """Indices, surest first, of at most 100 boxes (n, 4) whose scores (n,) pass and that do not overlap a surer one."""
    sure = (boxes.isfinite().all(dim=1) & scores.isfinite() & (scores > score_threshold)).nonzero()[:, 0]
    return sure[suppress_overlaps(boxes[sure], scores[sure], PERSON_IOU)][:PEOPLE]


def find_people(
    network: DensePoseNetwork, pyramid: Sequence[torch.Tensor], size: tuple[int, int], score_threshold: float
) -> People:
    """People in one picture of unpadded `size` (height, width), from its pyramid p2..p6."""
    proposals = propose(network, pyramid, size)
    logits, deltas = score_boxes(network, pyramid, proposals.boxes)
    boxes = clip_boxes(decode_boxes(proposals.boxes, deltas, PERSON_WEIGHTS), size)
    scores = logits.softmax(dim=1)[:, 0]
    chosen = choose_people(boxes, scores, score_threshold)
    return People(boxes[chosen], scores[chosen])


def rescale_boxes(boxes: torch.Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> torch.Tensor:
    """Boxes (n, 4) of a picture of `size` (height, width) in the pixels of the same picture at `new_size`."""
    x_scale, y_scale = new_size[1] / size[1], new_size[0] / size[0]
    return clip_boxes(boxes * boxes.new_tensor((x_scale, y_scale, x_scale, y_scale)), new_size)


def segment_body(
    network: DensePoseNetwork, pyramid: Sequence[torch.Tensor], boxes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coarse (n, 2, 112, 112) and fine (n, 25, 112, 112) logits, float32, of the bodies in `boxes` (n, 4)."""
    heads = network.roi_heads
    decoded = heads.decoder(*pyramid[:4])
    level = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    pooled = roi_align([decoded[0]], STRIDES_PX[:1], boxes, level, BODY_BINS)
    coarse, fine = heads.densepose_predictor(heads.densepose_head(pooled))
    return coarse.float(), fine.float()


def label_parts(coarse: torch.Tensor, fine: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Body parts, uint8 `size` (height, width), 0..24, from the logits (2, h, w) and (25, h, w) of one body."""
    inside = functional.interpolate(coarse[None], size, mode="bilinear", align_corners=False)[0].argmax(dim=0) > 0
    part = functional.interpolate(fine[None], size, mode="bilinear", align_corners=False)[0].argmax(dim=0)
    labels: np.ndarray = (part * inside).to(torch.uint8).cpu().numpy()
    return labels


def paint_body(coarse: torch.Tensor, fine: torch.Tensor, box: torch.Tensor, canvas_size: tuple[int, int]) -> np.ndarray:
    """Label map, uint8 `canvas_size` (height, width), of one body; 0 outside it.

    Parameters
    ----------
    coarse, fine
        Its logits, (2, h, w) and (25, h, w).
    box
        Its box, float32 (4,), inside the canvas. Corner and size are truncated to whole pixels, as the masks expect. A
        body less than a pixel wide or high leaves the canvas empty.
    """
    left, top, width, height = (int(value) for value in torch.cat((box[:2], box[2:] - box[:2])).tolist())
    canvas = np.zeros(canvas_size, dtype=np.uint8)
    if width > 0 and height > 0:
        canvas[top : top + height, left : left + width] = label_parts(coarse, fine, (height, width))
    return canvas
