"""SCHP human parsing: which garment or body part every pixel belongs to, in LIP's or ATR's labels.

All arithmetic follows the FastFit inference specification, section 3.4. Paper: Li et al. 2020, Self-Correction for
Human Parsing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.engine.parsers.affine import Anchor, upright_warp
from fastfit_watch.engine.parsers.checkpoints import read_weights
from fastfit_watch.engine.parsers.schp_network import AugmentCE2P

Dataset = Literal["lip", "atr"]

# Statistics of blue, green and red, used on red, green and blue: the released masks come from this mix-up.
_MEAN = (0.406, 0.456, 0.485)
_STD = (0.225, 0.224, 0.229)

# The files were trained with activation and norm in one module, so later modules count one less.
_RENAMES = {
    "decoder.conv3.2.weight": "decoder.conv3.3.weight",
    **{
        f"decoder.conv3.3.{leaf}": f"decoder.conv3.4.{leaf}"
        for leaf in ("weight", "bias", "running_mean", "running_var")
    },
    **{f"fushion.3.{leaf}": f"fushion.4.{leaf}" for leaf in ("weight", "bias")},
}


@dataclass(frozen=True)
class Labels:
    """A dataset's number of classes and the side in pixels of its network's square input."""

    classes: int
    side: int


LABELS: Mapping[Dataset, Labels] = {"lip": Labels(classes=20, side=473), "atr": Labels(classes=18, side=512)}


class SCHP:
    """One network for one dataset. `parse` keeps nothing between calls."""

    def __init__(self, network: AugmentCE2P, dataset: Dataset) -> None:
        """Take a network with its weights, device and dtype settled."""
        self.network = network.eval().requires_grad_(False)
        self._side = LABELS[dataset].side

    @classmethod
    def load(cls, path: Path, dataset: Dataset, device: str, dtype: torch.dtype = torch.float32) -> SCHP:
        """Load a released `.pth` (or its safetensors copy). Raises BundleError if it does not fit the network."""
        with torch.device("meta"):
            network = AugmentCE2P(LABELS[dataset].classes)
        weights = match_weights(read_weights(path), network, path)
        network.load_state_dict(weights, assign=True)
        return cls(network.to(device=device, dtype=dtype), dataset)

    def parse(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the labels of uint8 RGB (H, W, 3): uint8 (H, W), 0..19 for LIP and 0..17 for ATR."""
        return self.parse_batch([image])[0]

    @torch.inference_mode()
    def parse_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Label several pictures of any sizes in one pass of the network."""
        return read_labels(self.start(images), images)

    @torch.inference_mode()
    def start(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Queue one pass of the network over pictures of any sizes; a GPU's answer is not waited for.

        Returns logits at the network's input size, float32 (B, classes, side, side), for `read_labels`.
        """
        inputs = torch.from_numpy(np.stack([cut_square(image, self._side) for image in images]))
        return raise_logits(self.predict(inputs), self._side)

    @torch.inference_mode()
    def predict(self, squares: Tensor) -> Tensor:
        """Return logits at stride 4, float32 (B, classes, s, s), of uint8 RGB (B, S, S, 3)."""
        weight = self.network.conv1.weight
        logits: Tensor = self.network(normalise(squares.to(weight.device)).to(weight.dtype))
        return logits.float()


def parse_with(parsers: Sequence[SCHP], image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Label one picture, uint8 RGB (H, W, 3), by several networks: uint8 (H, W) of each.

    LIP's and ATR's inputs are squares of 473 and of 512 pixels and their weights differ, so they cannot share a batch.
    All are queued before the first answer is read: a GPU computes the next while the CPU warps the last one back.
    """
    started = [parser.start([image]) for parser in parsers]
    return [read_labels(logits, [image])[0] for logits in started]


def read_labels(logits: Tensor, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return each picture's labels, uint8 (H, W), from the logits of `SCHP.start`."""
    planes = logits.cpu().numpy()
    return [pick_labels(warp_back(each, image.shape[:2])) for each, image in zip(planes, images, strict=True)]


def match_weights(found: Mapping[str, Tensor], network: AugmentCE2P, path: Path) -> dict[str, Tensor]:
    """Return a complete state dict for `network` from a checkpoint's tensors under their released names.

    Extra tensors are left out. Batch counters, and the edge head whose output nobody reads, may be missing.

    Raises
    ------
    BundleError: a tensor is missing or has another shape; both are named.
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    if "decoder.conv3.2.weight" in plain:
        plain = {_RENAMES.get(name, name): tensor for name, tensor in plain.items()}
    complete: dict[str, Tensor] = {}
    for name, wanted in network.state_dict().items():
        tensor = plain.get(name)
        if tensor is None and (name.endswith(".num_batches_tracked") or name.startswith("edge.conv4.")):
            tensor = torch.zeros(wanted.shape, dtype=wanted.dtype)
        if tensor is None or tensor.shape != wanted.shape:
            state = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}, not {tuple(wanted.shape)}"
            raise BundleError(
                f"{path} does not fit the parsing network: {name} {state}.",
                hint="The LIP and ATR files may be swapped; if not, run `fastfit-watch models verify`.",
            )
        complete[name] = tensor
    return complete


def square_warp(size: tuple[int, int], side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 2x3 matrices from a picture of `size` (h, w) into the square input, and back.

    The longer side fills the square; centres meet.
    """
    height, width = size
    picture = Anchor(((width - 1) / 2, (height - 1) / 2), (max(size) - 1) / 2)
    square = Anchor(((side - 1) / 2, (side - 1) / 2), (side - 1) / 2)
    return upright_warp(picture, square), upright_warp(square, picture)


def cut_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Fit uint8 (H, W, 3) into uint8 (side, side, 3), black round it."""
    forward, _ = square_warp(image.shape[:2], side)
    return np.asarray(cv2.warpAffine(image, forward, (side, side), flags=cv2.INTER_LINEAR), np.uint8)


def normalise(squares: Tensor) -> Tensor:
    """Turn uint8 RGB (B, S, S, 3) into the network's float32 (B, 3, S, S)."""
    mean = torch.tensor(_MEAN, device=squares.device).view(3, 1, 1)
    std = torch.tensor(_STD, device=squares.device).view(3, 1, 1)
    return (squares.permute(0, 3, 1, 2).float() / 255 - mean) / std


def raise_logits(logits: Tensor, side: int) -> Tensor:
    """Enlarge logits (B, classes, s, s) to the network's input size (B, classes, side, side)."""
    return functional.interpolate(logits, size=(side, side), mode="bilinear", align_corners=True)


def warp_back(planes: NDArray[np.float32], size: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    """Yield each class's logits, float32 (classes, side, side), at the picture's `size` (h, w), one class at a time."""
    _, backward = square_warp(size, planes.shape[-1])
    height, width = size
    for plane in planes:
        yield cv2.warpAffine(plane, backward, (width, height), flags=cv2.INTER_LINEAR)


def pick_labels(planes: Iterator[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Return the number of the largest plane at each pixel, the first of equals, as uint8 (H, W).

    Two planes are held at a time, so a large photograph costs no more memory than its own size.
    """
    best = next(planes).copy()
    labels = np.zeros(best.shape, np.uint8)
    for number, plane in enumerate(planes, start=1):
        labels[plane > best] = number
        np.maximum(best, plane, out=best)
    return labels
