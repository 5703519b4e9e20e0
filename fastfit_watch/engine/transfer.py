"""Between the machine's memory and a device, without waiting for what the device has to do already.

A GPU copies from and to pinned memory by itself, in the order of its stream. From other memory the processor copies,
and only when all that was given to that stream before is done: then the device idles until the processor is back.
Torch keeps pinned memory for the next copy, and knows when the device has read it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the machine's memory, on the device. It may be changed at once."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def upload_pixels(pixels: NDArray[np.uint8], device: torch.device | str) -> Tensor:
    """An array of bytes, on the device: uint8 of the same shape. It may be changed at once."""
    if torch.device(device).type != "cuda":
        return torch.tensor(pixels, device=device)
    pinned = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
    np.copyto(pinned.numpy(), pixels)
    return pinned.to(device, non_blocking=True)


def download_pixels(pixels: Tensor) -> NDArray[np.uint8]:
    """Bytes from the device, uint8 of the same shape; waits for what the device must do before."""
    if not pixels.is_cuda:
        return np.asarray(pixels.contiguous().numpy())
    pinned = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
    pinned.copy_(pixels, non_blocking=True)
    torch.cuda.current_stream(pixels.device).synchronize()
    return np.asarray(pinned.numpy())
