"""Draws the noise of a look from its seed, the same on every device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fastfit_watch.engine.pixels import Pixels

DrawNoise = Callable[[tuple[int, ...]], Tensor]


class Noise(Protocol):
    """Where every standard normal number of a look comes from. All float32, on the CPU."""

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        """Return the latents that denoising starts from."""
        ...

    def step(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """Return what step `index` (from 0) adds. Steps are asked for in order, the last one too."""
        ...


class SeededNoise:
    """One stream from one seed, drawn on the CPU so that the device does not matter: initial, step 0, step 1, ..."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        """Draw the latents that denoising starts from."""
        return torch.randn(shape, generator=self._generator)

    def step(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """Draw the noise of the next step."""
        del index  # the order of the calls is the order of the stream
        return torch.randn(shape, generator=self._generator)


def draw_posterior_noise(slot: str, pictures: tuple[Pixels, ...], shape: tuple[int, ...]) -> Tensor:
    """Draw the VAE posterior's standard normal noise for one picture: float32 `shape`, on the CPU.

    The published model draws it from a generator nobody seeds. Here it follows from the content alone, seeded with the
    SHA-256 of the slot and the pixels: the latents of a garment are the same in every look, with every seed, and may be
    kept.

    Parameters
    ----------
    slot : what the picture is used as: a category, or "person".
    pictures : uint8 arrays, all that the encoded picture is made of.
    """
    return draw_seeded(posterior_seed(slot, pictures), shape)


def posterior_seed(slot: str, pictures: tuple[Pixels, ...]) -> int:
    """The seed of `draw_posterior_noise`. Other threads go on while it is made."""
    digest = hashlib.sha256(slot.encode())
    for picture in pictures:
        digest.update(repr(picture.shape).encode())
        digest.update(np.ascontiguousarray(picture).data)
    return int.from_bytes(digest.digest()[:8], "big") >> 1  # the generator takes 63 bits


def draw_seeded(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of a seed of its own: float32 `shape`, on the CPU."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
