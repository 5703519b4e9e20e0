"""The copy of a network that training steps run on: on a GPU narrower, and in the order of work that suits it."""

from __future__ import annotations

import copy
from functools import partial

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional


def working_copy(network: nn.Module, device: str) -> nn.Module:
    """A copy with the same parameters: on a GPU in bfloat16, channels last, with norms of our own; else as it is.

    Many CPUs have no instructions for bfloat16.
    """
    working = copy.deepcopy(network)
    if not device.startswith("cuda"):
        return working
    for module in working.modules():
        if isinstance(module, ResnetBlock2D):
            module.forward = partial(_resnet, module)
        elif isinstance(module, Transformer2DModel):
            module.norm.forward = partial(_norm, module.norm, silu=False)
        elif isinstance(last := getattr(module, "conv_norm_out", None), nn.GroupNorm):
            last.forward = partial(_norm, last, silu=True)  # type: ignore[method-assign]
            module.conv_act = nn.Identity()
    # Not the networks' own `to`, which warns of layers to be kept in float32; there are none.
    return channels_last(nn.Module.to(working, device, torch.bfloat16))


def channels_last(network: nn.Module) -> nn.Module:
    """Lay a network's weights out as convolutions on a GPU want them."""
    nn.Module.to(network, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in PyTorch's types
    return network


def _norm(module: nn.GroupNorm, pictures: Tensor, *, silu: bool) -> Tensor:
    from fastfit_watch.mini.group_norm import group_norm  # Triton comes with PyTorch for GPUs only

    return group_norm(pictures, module.weight, module.bias, module.num_groups, module.eps, silu=silu)


def _resnet(block: ResnetBlock2D, pictures: Tensor, temb: Tensor | None = None) -> Tensor:
    """diffusers' resnet as all networks here have it: no dropout, no resizing, an added embedding (`temb`)."""
    features = block.conv1(_norm(block.norm1, pictures, silu=True))
    if temb is not None:
        features = features + block.time_emb_proj(functional.silu(temb))[:, :, None, None]
    features = block.conv2(_norm(block.norm2, features, silu=True))
    result: Tensor = features + (pictures if block.conv_shortcut is None else block.conv_shortcut(pictures))
    return result
