"""The building blocks that FastFit's UNet and the VAE share, in the form that inference wants.

diffusers' modules keep the weights; these blocks read them. Pictures are laid out (B, H, W, channels), which
convolutions on a GPU prefer, in which tokens need no copying, and which nothing here gives up on the way. Biases that
another operation can add on its way are left to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.engine.fused import kernels

CHANNEL_STEP = 8
"""Matrix units want channel counts that are multiples of this."""


@dataclass(frozen=True)
class Convolution:
    """A convolution of channels-last pictures. `bias` is added only by `with_bias`."""

    weight: Tensor
    bias: Tensor
    stride: int
    padding: int

    @classmethod
    def of(cls, module: nn.Conv2d) -> Convolution:
        """Read a module's weights, laid out for channels-last pictures."""
        weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
        bias = torch.zeros_like(weight[:, 0, 0, 0]) if module.bias is None else module.bias.detach()
        return cls(weight, bias, module.stride[0], int(module.padding[0]))

    def padded(self, inputs: int, outputs: int) -> Convolution:
        """The same with channels of zeros added at the ends, up to these counts."""
        old_outputs, old_inputs, *_ = self.weight.shape
        grown = functional.pad(self.weight, (0, 0, 0, 0, 0, inputs - old_inputs, 0, outputs - old_outputs))
        bias = functional.pad(self.bias, (0, outputs - old_outputs))
        return Convolution(grown.contiguous(memory_format=torch.channels_last), bias, self.stride, self.padding)

    @property
    def reach(self) -> int:
        """How many pixels to either side it sees."""
        return self.weight.shape[-1] // 2

    def __call__(self, picture: Tensor) -> Tensor:
        """(B, H, W, inputs) to (B, H', W', outputs), without the bias."""
        planes = functional.conv2d(picture.permute(0, 3, 1, 2), self.weight, None, self.stride, self.padding)
        return planes.permute(0, 2, 3, 1)

    def with_bias(self, picture: Tensor) -> Tensor:
        """(B, H, W, inputs) to (B, H', W', outputs)."""
        planes = functional.conv2d(picture.permute(0, 3, 1, 2), self.weight, self.bias, self.stride, self.padding)
        return planes.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Norm:
    """A group norm's numbers."""

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float

    @classmethod
    def of(cls, module: Any) -> Norm:
        """Read a `GroupNorm`."""
        return cls(module.weight.detach(), module.bias.detach(), module.num_groups, module.eps)

    def __call__(self, picture: Tensor, offset: Tensor | None = None, *, silu: bool = True) -> Tensor:
        """Normalise (B, H, W, C); see `kernels.group_norm`."""
        return kernels.group_norm(picture, self.weight, self.bias, self.groups, self.eps, offset, silu=silu)


class Resnet:
    """One residual block (diffusers' `ResnetBlock2D`)."""

    def __init__(self, module: Any) -> None:
        # "group" is what a VAE's decoder says where there is no embedding.
        if module.time_embedding_norm not in ("default", "group") or module.output_scale_factor != 1:
            raise ValueError(f"a resnet with {module.time_embedding_norm} embedding is not known here")
        self._norms = Norm.of(module.norm1), Norm.of(module.norm2)
        self._first, self._second = Convolution.of(module.conv1), Convolution.of(module.conv2)
        self._bias = self._second.bias
        self._shortcut: Tensor | None = None
        if module.conv_shortcut is not None:
            self._shortcut = module.conv_shortcut.weight.detach()[:, :, 0, 0].contiguous()
            self._bias = self._bias + module.conv_shortcut.bias.detach()

    @property
    def offset(self) -> Tensor:
        """What is added between the convolutions if there is no embedding: the first one's bias, (1, C)."""
        return self._first.bias[None]

    @property
    def reach(self) -> int:
        """How many pixels to either side it sees."""
        return self._first.reach + self._second.reach

    def __call__(self, picture: Tensor, offset: Tensor) -> Tensor:
        """(B, H, W, inputs) to (B, H, W, outputs). offset: (B, outputs) or (1, outputs), embedding and first bias."""
        hidden = self._first(self._norms[0](picture))
        hidden = self._second(self._norms[1](hidden, offset))
        residual = picture if self._shortcut is None else functional.linear(picture, self._shortcut)
        return kernels.add(hidden, residual, self._bias)


def enlarge(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest neighbour: (B, H, W, C) to (B, *size, C)."""
    planes = functional.interpolate(picture.permute(0, 3, 1, 2), size=size, mode="nearest")
    return planes.permute(0, 2, 3, 1)


def round_up(channels: int) -> int:
    """The next channel count that matrix units like."""
    return -(-channels // CHANNEL_STEP) * CHANNEL_STEP
