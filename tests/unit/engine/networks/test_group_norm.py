"""Group norms of a network are as precise for channels-last planes as for contiguous ones."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fastfit_watch.engine.networks.group_norm import keep_group_norms_precise


def test_channels_last_planes_with_a_small_spread() -> None:
    planes = 1 + 1e-3 * torch.randn((1, 16, 24, 64), generator=torch.Generator().manual_seed(0))
    planes = planes.permute(0, 3, 1, 2)
    assert not planes.is_contiguous()
    network = nn.Sequential(nn.GroupNorm(32, 64, eps=1e-6))
    keep_group_norms_precise(network)
    expected = functional.group_norm(planes.double().contiguous(), 32, eps=1e-6)
    torch.testing.assert_close(network(planes).double(), expected, rtol=0, atol=5e-4)
