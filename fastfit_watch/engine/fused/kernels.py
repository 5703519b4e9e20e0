"""What lies between convolutions and attention: norms, SiLU, sums, and the feed-forward's gate.

Pictures are laid out (B, H, W, channels), contiguous. On a CUDA device with Triton each is one or three fused kernels
(`triton_kernels`); elsewhere, and where gradients are wanted, PyTorch's own operations give the same numbers up to
rounding.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

_CHECKED = (2, 12, 8, 96)  # an odd number of blocks of rows and channels
_TOLERANCE = 0.05  # of numbers around 1, in bfloat16


@cache
def has_triton(device: torch.device) -> bool:
    """Do the fused kernels run on this device, with the right results? Tried out once; any trouble means no."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    try:
        return _try_triton(device)
    except Exception:  # noqa: BLE001 - no compiler, an unknown card, another Triton: PyTorch's own kernels always work
        return False


def _try_triton(device: torch.device) -> bool:
    from fastfit_watch.engine.fused import triton_kernels

    random = torch.Generator(device).manual_seed(0)
    picture = torch.randn(_CHECKED, generator=random, device=device).to(torch.bfloat16)
    weight, bias, offset = (
        torch.randn(_CHECKED[-1], generator=random, device=device).to(torch.bfloat16) for _ in range(3)
    )
    rows = picture.flatten(1, 2)
    pairs = (
        (
            triton_kernels.group_norm(rows, weight, bias, 32, 1e-5, offset[None], True).view(picture.shape),
            _group_norm(picture.float(), weight.float(), bias.float(), 32, 1e-5, offset[None].float(), True),
        ),
        (triton_kernels.add(rows, rows, bias), (2 * rows + bias).float()),
        (triton_kernels.gate(rows), _gate(rows.float())),
        (
            triton_kernels.layer_norm(rows, rows, bias, weight, bias, 1e-5)[1],
            functional.layer_norm(2 * rows.float() + bias.float(), weight.shape, weight.float(), bias.float(), 1e-5),
        ),
    )
    return all(torch.allclose(fused.float(), plain, rtol=_TOLERANCE, atol=_TOLERANCE) for fused, plain in pairs)


def group_norm(
    picture: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    offset: Tensor | None = None,
    *,
    silu: bool = True,
) -> Tensor:
    """Normalise groups of channels (Wu and He 2018), then apply SiLU.

    Parameters
    ----------
    picture : (B, H, W, C). weight, bias : (C,).
    offset : (B, C) or (1, C), added to the picture first: a resnet's time embedding and a convolution's bias.

    Returns
    -------
    (B, H, W, C).
    """
    if has_triton(picture.device):
        from fastfit_watch.engine.fused import triton_kernels

        rows = picture.contiguous().flatten(1, 2)
        return triton_kernels.group_norm(rows, weight, bias, groups, eps, offset, silu).view(picture.shape)
    return _group_norm(picture, weight, bias, groups, eps, offset, silu)


def _group_norm(
    picture: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, offset: Tensor | None, silu: bool
) -> Tensor:
    planes = picture.permute(0, 3, 1, 2)
    if offset is not None:
        planes = planes + offset[:, :, None, None]
    # Of a channels-last view PyTorch takes a CPU's statistics as a difference of large sums, which loses small spreads.
    normal = functional.group_norm(planes.contiguous(), groups, weight, bias, eps)
    return (functional.silu(normal, inplace=True) if silu else normal).permute(0, 2, 3, 1)


def add(rows: Tensor, residual: Tensor, bias: Tensor) -> Tensor:
    """rows + residual + bias, both (..., C) of one shape; bias is (C,)."""
    if has_triton(rows.device):
        from fastfit_watch.engine.fused import triton_kernels

        return triton_kernels.add(rows.contiguous(), residual.contiguous(), bias)
    return (rows + bias).add_(residual)


def norm(rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm (Ba et al. 2016) of (..., C); weight and bias are (C,)."""
    if has_triton(rows.device):
        from fastfit_watch.engine.fused import triton_kernels

        return triton_kernels.layer_norm(rows.contiguous(), None, None, weight, bias, eps)[1]
    return functional.layer_norm(rows, weight.shape, weight, bias, eps)


def add_norm(
    rows: Tensor, residual: Tensor, added: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """rows + residual + added, as `add`, and the layer norm of that."""
    if has_triton(rows.device):
        from fastfit_watch.engine.fused import triton_kernels

        return triton_kernels.layer_norm(rows.contiguous(), residual.contiguous(), added, weight, bias, eps)
    total = (rows + added).add_(residual)
    return total, functional.layer_norm(total, weight.shape, weight, bias, eps)


def gate(rows: Tensor) -> Tensor:
    """GEGLU's gate (Shazeer 2020): first half of the channels times GELU of the second, (..., 2C) to (..., C)."""
    if has_triton(rows.device):
        from fastfit_watch.engine.fused import triton_kernels

        return triton_kernels.gate(rows.contiguous())
    return _gate(rows)


def _gate(rows: Tensor) -> Tensor:
    value, gates = rows.chunk(2, dim=-1)
    return value * functional.gelu(gates)
