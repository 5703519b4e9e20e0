"""Distances between drawn and rebuilt pictures, float32 (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

_SMALLEST_REGION_PX = 40.0
_SPREAD_WEIGHT = 0.5


def _chroma(pictures: Tensor) -> Tensor:
    """Red and blue against green, averaged over 4x4 pixels."""
    return functional.avg_pool2d(pictures[:, ::2] - pictures[:, 1:2], 4)


def picture_loss(rebuilt: Tensor, pictures: Tensor) -> Tensor:
    """L1 of pixels, of their differences across and down, and of chroma; 1 - SSIM (Wang et al. 2004, 7x7 windows)."""
    across = (rebuilt.diff(dim=3) - pictures.diff(dim=3)).abs().mean()
    down = (rebuilt.diff(dim=2) - pictures.diff(dim=2)).abs().mean()
    mean_a, mean_b = functional.avg_pool2d(rebuilt, 7, 1), functional.avg_pool2d(pictures, 7, 1)
    variance_a = functional.avg_pool2d(rebuilt**2, 7, 1) - mean_a**2
    variance_b = functional.avg_pool2d(pictures**2, 7, 1) - mean_b**2
    covariance = functional.avg_pool2d(rebuilt * pictures, 7, 1) - mean_a * mean_b
    c1, c2 = 0.02**2, 0.06**2  # (0.01 L)^2 and (0.03 L)^2 for a range L of 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
    colour = (_chroma(rebuilt) - _chroma(pictures)).abs().mean()
    return (rebuilt - pictures).abs().mean() + across + down + colour + 0.15 * (1 - similarity).mean()


def weighted_loss(rebuilt: Tensor, pictures: Tensor, weight: Tensor) -> Tensor:
    """L1 of pixels and of chroma over 2x2 pixels, where `weight`, float32 (B, 1, H, W), says how much each counts."""
    error = rebuilt - pictures
    pixels = (error.abs() * weight).sum() / (weight.sum() * error.shape[1])
    colour = functional.avg_pool2d(error[:, ::2] - error[:, 1:2], 2).abs()
    weight = functional.avg_pool2d(weight, 2)
    return pixels + (colour * weight).sum() / (weight.sum() * colour.shape[1])


def region_loss(rebuilt: Tensor, pictures: Tensor, labels: Tensor, count: int) -> Tensor:
    """Difference of the mean colour, and of its spread, in every region: what the eye knows a garment by.

    labels: integers (B, H, W), 0..count - 1; 0 is the background, counting little. Regions of a few pixels are left
    out.
    """
    regions = (labels[:, None] == torch.arange(count, device=labels.device)[:, None, None]).float()
    area = regions.sum((2, 3))
    counted = (area >= _SMALLEST_REGION_PX).float()
    counted[:, 0] *= 0.2
    mix = _mix(pictures.device)
    moments = []
    for picture in (rebuilt, pictures):
        mixed = torch.einsum("bchw,cm->bmhw", picture, mix)
        mean = torch.einsum("bmhw,bkhw->bkm", mixed, regions) / area.clamp(min=1)[..., None]
        square = torch.einsum("bmhw,bkhw->bkm", mixed**2, regions) / area.clamp(min=1)[..., None]
        moments.append((mean, (square - mean**2).clamp(min=0).add(1e-4).sqrt()))
    (mean_a, spread_a), (mean_b, spread_b) = moments
    distance = (mean_a - mean_b).abs().mean(-1) + _SPREAD_WEIGHT * (spread_a - spread_b).abs().mean(-1)
    return (distance * counted).sum() / counted.sum().clamp(min=1)


@lru_cache
def _mix(device: torch.device) -> Tensor:
    """From red, green and blue to these and their differences: colours of one mean and spread may still differ."""
    return torch.tensor([[1.0, 0, 0, 0.7, 0, 0.7], [0, 1, 0, -0.7, 0.7, 0], [0, 0, 1, 0, -0.7, -0.7]], device=device)
