"""Body parts of the person in a picture: DensePose (Güler et al., 2018), R_50_FPN_s1x, written in plain PyTorch.

The picture goes to the detector at most 512 pixels long, and only the surest person is labelled, as in the FastFit
inference specification, section 3.3.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from fastfit_watch.engine.parsers.densepose_boxes import has_area
from fastfit_watch.engine.parsers.densepose_checkpoint import load_weights
from fastfit_watch.engine.parsers.densepose_detector import (
    DetectorSettings,
    find_people,
    normalise_picture,
    paint_body,
    rescale_boxes,
    resize_picture,
    segment_body,
    working_size,
)
from fastfit_watch.engine.parsers.densepose_network import DensePoseNetwork

LONGEST_SIDE_PX = 512


class DensePose:
    """Labels body parts. Holds weights only, so two threads may use one instance."""

    def __init__(self, network: DensePoseNetwork, settings: DetectorSettings | None = None) -> None:
        self.network = network.eval()
        self.settings = settings or DetectorSettings()

    @classmethod
    def load(cls, path: Path, device: str | torch.device, dtype: torch.dtype | None = None) -> DensePose:
        """Read the released `.pkl` file, or a `.safetensors` file made from it.

        `dtype` None means float32: box corners are truncated to whole pixels and people pass or fail a score
        threshold, so the rounding of a shorter type can move a whole mask, and the network is small enough to spare.

        Raises
        ------
        BundleError
            The file is missing, damaged, unsafe, or holds another network.
        """
        with torch.device("meta"):
            network = DensePoseNetwork()
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        network.load_state_dict(load_weights(path, shapes), assign=True)
        return cls(network.requires_grad_(False).to(device=device, dtype=dtype or torch.float32))

    @torch.inference_mode()
    def label(self, image: np.ndarray) -> np.ndarray:
        """Body parts, uint8 (H, W), 0..24, of the surest person in an RGB picture, uint8 (H, W, 3)."""
        picture = shrink_picture(image)
        size = (picture.shape[0], picture.shape[1])
        seen_size = working_size(size, self.settings)
        weight = self.network.roi_heads.box_predictor.cls_score.weight
        batch = normalise_picture(resize_picture(picture, seen_size), weight.device).to(weight.dtype)
        pyramid = self.network.backbone(batch)
        people = find_people(self.network, pyramid, seen_size, self.settings.score_threshold)
        boxes = rescale_boxes(people.boxes, seen_size, size)
        first = has_area(boxes).nonzero()[:1, 0]
        labels = np.zeros(size, dtype=np.uint8)
        if len(first):
            coarse, fine = segment_body(self.network, pyramid, people.boxes[first])
            labels = paint_body(coarse[0], fine[0], boxes[first][0], size)
        return restore_size(labels, (image.shape[0], image.shape[1]))


def shrink_picture(image: np.ndarray) -> np.ndarray:
    """RGB picture, uint8 (H, W, 3), to the BGR picture the detector is given, at most 512 pixels long."""
    height, width = image.shape[:2]
    picture = np.ascontiguousarray(image[:, :, ::-1])
    if max(height, width) <= LONGEST_SIDE_PX:
        return picture
    scale = LONGEST_SIDE_PX / max(height, width)
    smaller: np.ndarray = cv2.resize(picture, (max(1, int(width * scale)), max(1, int(height * scale))))
    return smaller


def restore_size(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a label map, uint8 (h, w), to `size` (height, width), without inventing labels."""
    return np.array(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))
