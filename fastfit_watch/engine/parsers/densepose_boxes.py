"""Arithmetic on boxes for the DensePose detector: anchors, decoding, suppression and pooling.

A box is `(x0, y0, x1, y1)` in pixels of the network's input picture, float32, unless a docstring says otherwise.
Numbers and rules are those of the DensePose inference specification, sections 4 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

ANCHOR_RATIOS = (0.5, 1.0, 2.0)  # height / width
LARGEST_GROWTH_LOG = math.log(1000 / 16)  # keeps exp() of a wild prediction finite
SAMPLES_PER_BIN = 2  # along each axis


def anchor_shapes(size_px: int) -> torch.Tensor:
    """The three anchors of one pyramid level around the origin, shape (3, 4), one row for each ratio."""
    widths = [math.sqrt(size_px * size_px / ratio) for ratio in ANCHOR_RATIOS]
    rows = [(-w / 2, -ratio * w / 2, w / 2, ratio * w / 2) for w, ratio in zip(widths, ANCHOR_RATIOS, strict=True)]
    return torch.tensor(rows, dtype=torch.float32)


def grid_anchors(size_px: int, stride_px: int, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Anchors of every cell of a `(rows, columns)` grid, shape (rows * columns * 3, 4), anchor fastest, then column."""
    y = torch.arange(grid[0], device=device, dtype=torch.float32) * stride_px
    x = torch.arange(grid[1], device=device, dtype=torch.float32) * stride_px
    centre_y, centre_x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((centre_x, centre_y, centre_x, centre_y), dim=-1)
    return (centres[:, :, None, :] + anchor_shapes(size_px).to(device)).reshape(-1, 4)


def decode_boxes(boxes: torch.Tensor, deltas: torch.Tensor, weights: tuple[float, float, float, float]) -> torch.Tensor:
    """Move and scale `boxes` (n, 4) by predicted `deltas` (n, 4), the box coding of Faster R-CNN (Ren et al., 2015)."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    centre_x, centre_y = boxes[:, 0] + width / 2, boxes[:, 1] + height / 2
    dx, dy, dw, dh = (deltas / deltas.new_tensor(weights)).unbind(dim=1)
    new_x, new_y = dx * width + centre_x, dy * height + centre_y
    half_width = dw.clamp(max=LARGEST_GROWTH_LOG).exp() * width / 2
    half_height = dh.clamp(max=LARGEST_GROWTH_LOG).exp() * height / 2
    return torch.stack((new_x - half_width, new_y - half_height, new_x + half_width, new_y + half_height), dim=1)


def clip_boxes(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Cut boxes (n, 4) to a picture of `size` (height, width)."""
    height, width = size
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=1)


def has_area(boxes: torch.Tensor) -> torch.Tensor:
    """Which boxes (n, 4) are wider and higher than zero, bool (n,)."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def suppress_overlaps(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression.

    Parameters
    ----------
    boxes, scores
        (n, 4) and (n,).
    iou_threshold
        A box is dropped when its intersection over union with a better, kept box is strictly above this.

    Returns
    -------
    Indices of the kept boxes, int64 (k,), best score first; equal scores keep their order.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked = boxes[order]
    top_left = torch.maximum(ranked[:, None, :2], ranked[None, :, :2])
    bottom_right = torch.minimum(ranked[:, None, 2:], ranked[None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    area = (ranked[:, 2] - ranked[:, 0]) * (ranked[:, 3] - ranked[:, 1])
    overlap = shared / (area[:, None] + area[None, :] - shared)
    # One copy to the CPU: walking down the ranks on a GPU would wait for the device at every box.
    apart = (~(overlap > iou_threshold)).cpu().numpy()
    kept = np.ones(len(apart), dtype=bool)
    for rank in range(len(apart)):
        if kept[rank]:
            kept[rank + 1 :] &= apart[rank, rank + 1 :]
    return order[torch.from_numpy(kept).to(order.device)]


def suppress_within_groups(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """`suppress_overlaps` for each value of `groups` int64 (n,) alone; all kept indices, best score first."""
    kept = [torch.empty(0, dtype=torch.int64, device=boxes.device)]
    for group in sorted(set(groups.tolist())):
        rows = (groups == group).nonzero()[:, 0]
        kept.append(rows[suppress_overlaps(boxes[rows], scores[rows], iou_threshold)])
    joined = torch.cat(kept)
    return joined[scores[joined].argsort(descending=True, stable=True)]


def choose_levels(boxes: torch.Tensor) -> torch.Tensor:
    """Pyramid level of each box, int64 (n,), 0..3 for p2..p5 (Feature Pyramid Networks, Lin et al., 2017, eq. 1)."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return (4 + (side / 224 + 1e-8).log2()).floor().clamp(2, 5).to(torch.int64) - 2


def roi_align(
    maps: Sequence[torch.Tensor], strides_px: Sequence[int], boxes: torch.Tensor, levels: torch.Tensor, bins: int
) -> torch.Tensor:
    """Pool each box from its own feature map: ROIAlign (Mask R-CNN, He et al., 2017), without the half-pixel shift.

    Every output value is a weighted sum of 16 pixels (2 x 2 samples, each mixed from 2 x 2 pixels). The sum runs as one
    `embedding_bag` over the pixels of all maps, so no copy of the sampled pixels is ever held.

    Parameters
    ----------
    maps, strides_px
        Feature maps (C, H_k, W_k), and how many input pixels one of their pixels spans.
    boxes, levels
        float32 (n, 4), and for each the index of its map, int64 (n,).
    bins
        Side of the output.

    Returns
    -------
    (n, C, bins, bins) in the type of the maps.
    """
    pixels = torch.cat([feature.flatten(1) for feature in maps], dim=1).T.contiguous()
    heights = levels.new_tensor([feature.shape[1] for feature in maps])
    widths = levels.new_tensor([feature.shape[2] for feature in maps])
    starts = (heights * widths).cumsum(0) - heights * widths
    scaled = boxes / boxes.new_tensor(strides_px)[levels, None]
    rows, row_weights = _axis_taps(scaled[:, 1], scaled[:, 3], heights[levels], bins)
    columns, column_weights = _axis_taps(scaled[:, 0], scaled[:, 2], widths[levels], bins)
    row_starts = starts[levels, None, None] + rows * widths[levels, None, None]
    index = row_starts[:, :, None, :, None] + columns[:, None, :, None, :]
    weight = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    taps = (2 * SAMPLES_PER_BIN) ** 2
    pooled = functional.embedding_bag(
        index.reshape(-1, taps), pixels, mode="sum", per_sample_weights=weight.reshape(-1, taps).to(pixels.dtype)
    )
    return pooled.reshape(len(boxes), bins, bins, pixels.shape[1]).permute(0, 3, 1, 2).contiguous()


def _axis_taps(
    first: torch.Tensor, last: torch.Tensor, length: torch.Tensor, bins: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels read along one axis and their weights, both (n, bins, 4), for spans `first`..`last` (n,) in map pixels."""
    bin_length = (last - first).clamp(min=1)[:, None, None] / bins
    bin_number = torch.arange(bins, device=first.device)[:, None]
    sample_number = torch.arange(SAMPLES_PER_BIN, device=first.device)
    position = first[:, None, None] + bin_number * bin_length + (sample_number + 0.5) * bin_length / SAMPLES_PER_BIN
    end = length[:, None, None]
    inside = (position >= -1) & (position <= end)
    position = position.clamp(min=0)
    low = torch.minimum(position.floor().to(torch.int64), end - 1)
    high = torch.minimum(low + 1, end - 1)
    fraction = torch.where(low < end - 1, position - low, 0)
    share = inside / SAMPLES_PER_BIN
    return torch.cat((low, high), dim=2), torch.cat(((1 - fraction) * share, fraction * share), dim=2)
