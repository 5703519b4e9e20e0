"""Converts between pictures of bytes and tensors, and composes the result."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastfit_watch.engine.transfer import download_pixels, upload_pixels

Pixels = NDArray[np.uint8]


MASKED = 128  # a mask byte from here on is repainted: 0.5 of 255, rounded as section 2 step 3 rounds it


def make_condition(mask: Tensor, masked_latents: Tensor) -> Tensor:
    """Put mask and masked person's latents side by side, (B, 5, h, w). `mask` is (B, 1, H, W), 0 or 1 (step 6)."""
    small = functional.interpolate(mask, size=masked_latents.shape[2:], mode="nearest")
    return torch.cat([small, masked_latents], dim=1)


def to_tensor(picture: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [-1, 1]. It travels to the device as bytes."""
    return _planes(picture, device) / 127.5 - 1


def mask_to_tensor(mask: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (H, W) to float32 (1, 1, H, W): 1 where the picture is repainted, else 0."""
    return (upload_pixels(mask, device) >= MASKED).float()[None, None]


def _planes(picture: Pixels, device: torch.device | str) -> Tensor:
    return upload_pixels(picture, device).permute(2, 0, 1)[None].float()


def cover_person(picture: Pixels, mask: Pixels, pose: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """Hide what is repainted behind the pose drawing: float32 (1, 3, H, W) (steps 3 and 4).

    The pose is scaled to [0, 1], not [-1, 1]: its black is the mid-grey of the VAE's range, as the model was trained.

    Parameters
    ----------
    picture, pose : uint8 (H, W, 3), RGB. mask : uint8 (H, W).
    """
    repainted = mask_to_tensor(mask, device)
    drawing = _planes(pose, device) / 255
    return to_tensor(picture, device) * (1 - repainted) + repainted * drawing


def to_pixels(generated: Tensor) -> Pixels:
    """float32 (1, 3, H, W), nominally in [-1, 1], to uint8 (H, W, 3) in the machine's memory."""
    levels = ((generated[0] / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return download_pixels(levels.permute(1, 2, 0).contiguous())


def composite(generated: Pixels, picture: Pixels, mask: Pixels) -> Pixels:
    """Put the repainted region into the picture: uint8 (H, W, 3) (steps 13 and 14).

    Chosen byte by byte after rounding: pixels outside the mask are the picture's own, whatever type the VAE works in.

    Parameters
    ----------
    generated, picture : uint8 (H, W, 3). mask : uint8 (H, W).
    """
    result = picture.copy()
    cv2.copyTo(generated, (mask >= MASKED).view(np.uint8), result)
    return result


Size = tuple[int, int]
