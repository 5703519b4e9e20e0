"""The weights behind the UNet and pipeline vectors: every tensor follows from its name, its shape and one seed.

A tensor is drawn from `numpy.random.RandomState((crc32(name) + seed) mod 2**32)`: the order of names does not matter.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def draw_value(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """One weight: biases 0.1 z, class table z, norm gains 1 + 0.1 z, all else z / sqrt(fan in), z standard normal."""
    z = np.random.RandomState((zlib.crc32(name.encode()) + seed) % (1 << 32)).standard_normal(shape)
    if name.endswith(".bias"):
        z *= 0.1
    elif len(shape) <= 1:
        z = 1 + 0.1 * z
    elif not name.startswith("class_embedding."):
        z /= np.sqrt(float(np.prod(shape[1:])))
    return z.astype(np.float32)


def fill(network: nn.Module, seed: int) -> None:
    """Give a network the weights of `seed`, in place."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            tensor.copy_(torch.from_numpy(draw_value(name, tuple(tensor.shape), seed)))
