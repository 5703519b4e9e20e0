"""The `mini` bundle's human parser: one small network in place of DWPose, DensePose and SCHP.

It reads drawn figures, not photographs. A U-Net predicts LIP, ATR and DensePose labels at full size and heat maps of
the 18 OpenPose body points at a quarter of it; the pose picture is then drawn by the code that draws DWPose's.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.engine.networks.group_norm import keep_group_norms_precise
from fastfit_watch.engine.parsers.parsing import Parsing
from fastfit_watch.engine.parsers.pose_drawing import detect_size, draw_pose, resize_back

LABEL_COUNTS = {"lip": 20, "atr": 18, "densepose": 25}
BODY_POINTS = 18
KEYPOINTS = 134  # DWPose's whole-body count; the mini world knows the body points only
HEATMAP_STRIDE = 4
_SIZE_STEP = 32  # five halvings
_VISIBLE = 0.3  # DWPose's own limit for a body point


class _Block(nn.Sequential):
    """3x3 convolution, group norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.GroupNorm(8, outputs), nn.SiLU())


class MiniParserNetwork(nn.Module):
    """Picture (B, 3, H, W) in [-1, 1] to label logits (B, 63, H, W) and heat-map logits (B, 18, H/4, W/4).

    H and W are multiples of 32. Logits are ordered LIP, ATR, DensePose.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96, 96, 96)) -> None:
        super().__init__()
        self.stem = _Block(3, widths[0])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Sequential(_Block(a, b, stride=2), _Block(b, b)) for a, b in pairs)
        self.up = nn.ModuleList(_Block(b + a, a) for a, b in reversed(pairs))
        self.labels = nn.Sequential(_Block(widths[0], 48), nn.Conv2d(48, sum(LABEL_COUNTS.values()), 1))
        self.points = nn.Conv2d(widths[2], BODY_POINTS, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return label logits and heat-map logits."""
        skips = [self.stem(picture)]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        features = skips.pop()
        points = features
        for stage in self.up:
            skip = skips.pop()
            wider = functional.interpolate(features, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            features = stage(torch.cat([wider, skip], dim=1))
            if features.shape[-2] * HEATMAP_STRIDE == picture.shape[-2]:
                points = features
        return self.labels(features), self.points(points)


class MiniParser:
    """Parses a picture of any size by way of the size the network was trained at."""

    def __init__(self, network: MiniParserNetwork, height: int, device: str) -> None:
        self._network = network.to(device).eval()
        self._height = height
        self._device = device

    @classmethod
    def load(cls, folder: Path, device: str, dtype: torch.dtype) -> MiniParser:
        """Read `config.json` and `model.safetensors`. The network is tiny and runs in float32 whatever `dtype` is."""
        del dtype
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            network = MiniParserNetwork(tuple(config["widths"]))
            weights = load_file(folder / "model.safetensors")
            network.load_state_dict({name: value.float() for name, value in weights.items()})
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise BundleError(
                f"The parser in {folder} cannot be read: {error}.", hint="Install the bundle again."
            ) from error
        keep_group_norms_precise(network)
        return cls(network, int(config["height"]), device)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The one network."""
        return (self._network,)

    @torch.inference_mode()
    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """Label an RGB picture, uint8 (H, W, 3), any size from 32 pixels up."""
        height, width = image.shape[:2]
        scale = self._height / max(height, width * 4 / 3)
        small = cv2.resize(
            image, (max(1, round(width * scale)), max(1, round(height * scale))), None, 0, 0, cv2.INTER_AREA
        )
        logits, heat = self._network(_to_tensor(small).to(self._device))
        rows, columns = small.shape[:2]
        labels = [
            cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST)
            for part in _labels(logits[:, :, :rows, :columns])
        ]
        points, scores = _points(heat.sigmoid()[0].cpu().numpy())
        points *= (width / columns, height / rows)
        return Parsing(_draw(points, scores, (height, width)), labels[2], labels[0], labels[1])


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H', W') in [-1, 1], padded by its own edge to multiples of 32."""
    below, right = (-image.shape[0]) % _SIZE_STEP, (-image.shape[1]) % _SIZE_STEP
    padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1).float()[None] / 127.5 - 1


def _labels(logits: Tensor) -> list[NDArray[np.uint8]]:
    """Arg-max of each group of logits: LIP, ATR, DensePose, each uint8 (H, W)."""
    groups = torch.split(logits[0], list(LABEL_COUNTS.values()))
    return [group.argmax(0).to(torch.uint8).cpu().numpy() for group in groups]


def _points(heat: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Peak of each heat map, refined by the centre of mass around it: pixels (18, 2) as (x, y), and scores (18,)."""
    points, scores = np.zeros((BODY_POINTS, 2)), np.zeros(BODY_POINTS)
    for index, plane in enumerate(np.pad(heat, ((0, 0), (1, 1), (1, 1)))):
        peak = divmod(int(plane.argmax()), plane.shape[1])
        scores[index] = plane[peak]
        row, column = (min(max(at, 1), side - 2) for at, side in zip(peak, plane.shape, strict=True))
        around = plane[row - 1 : row + 2, column - 1 : column + 2]
        total = around.sum() + 1e-9
        x = column - 1 + (around.sum(0) * (-1, 0, 1)).sum() / total
        y = row - 1 + (around.sum(1) * (-1, 0, 1)).sum() / total
        points[index] = (x + 0.5) * HEATMAP_STRIDE, (y + 0.5) * HEATMAP_STRIDE
    return points, scores


def _draw(points: NDArray[np.float64], scores: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Skeleton picture at `size` (height, width), through DWPose's drawing size and back."""
    large = detect_size(size)
    keypoints, certainty = np.full((1, KEYPOINTS, 2), -1.0), np.zeros((1, KEYPOINTS))
    keypoints[0, :BODY_POINTS] = points * (large[1] / size[1], large[0] / size[0])
    certainty[0, :BODY_POINTS] = np.where(scores > _VISIBLE, 1.0, 0.0)
    return resize_back(draw_pose(keypoints, certainty, large), size)
