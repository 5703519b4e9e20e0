"""Keeps PyTorch's group norms precise on a CPU."""

from __future__ import annotations

from typing import Any

from torch import nn


def keep_group_norms_precise(network: nn.Module) -> None:
    """Let every `nn.GroupNorm` of a network see contiguous planes.

    On a CPU PyTorch has a way of its own for channels-last planes, which takes the variance as a difference of large
    sums: where a group's spread is a thousandth of its mean, nothing right is left. Planes become channels-last where
    the weights of a convolution are, and behind diffusers' attention. On a GPU PyTorch makes them contiguous itself.
    """
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(_make_contiguous)


def _make_contiguous(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    planes, *rest = inputs
    return planes.contiguous(), *rest
