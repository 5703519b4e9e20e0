"""Norms on a CPU: a group whose spread is small against its mean is normalised as precisely as float32 allows."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fastfit_watch.engine.fused import kernels

EPS = 1e-6


@pytest.mark.parametrize(("spread", "tolerance"), [(1.0, 2e-6), (1e-2, 5e-5), (1e-3, 5e-4)])
@pytest.mark.parametrize("offset_mean", [0.0, 2.0])
def test_small_spreads_against_float64(spread: float, tolerance: float, offset_mean: float) -> None:
    random = torch.Generator().manual_seed(0)
    picture = 1 + spread * torch.randn((2, 32, 24, 64), generator=random)
    weight, bias = (torch.randn(64, generator=random) for _ in range(2))
    # A constant of a whole group shifts its mean and leaves its spread as it is.
    offset = torch.full((1, 64), offset_mean)
    found = kernels.group_norm(picture, weight, bias, 32, EPS, offset, silu=False)
    planes = (picture + offset[:, None, None]).double().permute(0, 3, 1, 2).contiguous()
    expected = functional.group_norm(planes, 32, weight.double(), bias.double(), EPS).permute(0, 2, 3, 1)
    assert found.shape == picture.shape
    scale = float(weight.abs().max()) * (1 + offset_mean)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * scale)


def test_silu_comes_last() -> None:
    picture = torch.randn((1, 4, 3, 8), generator=torch.Generator().manual_seed(0))
    weight, bias = torch.ones(8), torch.zeros(8)
    plain = kernels.group_norm(picture, weight, bias, 4, EPS, silu=False)
    torch.testing.assert_close(kernels.group_norm(picture, weight, bias, 4, EPS), functional.silu(plain))
