"""What the decoder of the mini bundle is trained on."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fastfit_watch.mini.losses import picture_loss, region_loss, weighted_loss

PICTURE = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
LABELS = torch.zeros(2, 32, 24, dtype=torch.int64)
LABELS[:, :12, :12] = 1  # 144 pixels
LABELS[:, 20:22, 20:22] = 4  # 4 pixels: too few to be known by their colour


def inside(label: int) -> torch.Tensor:
    return functional.one_hot(LABELS, 6)[..., label].float()[:, None]


def test_equal_pictures_have_no_distance() -> None:
    assert region_loss(PICTURE, PICTURE, LABELS, 6) == 0
    assert weighted_loss(PICTURE, PICTURE, torch.ones(2, 1, 32, 24)) == 0
    assert picture_loss(PICTURE, PICTURE) == pytest.approx(0, abs=1e-6)


def test_a_region_in_another_colour_costs_and_noise_of_the_same_mean_and_spread_does_not() -> None:
    tinted = region_loss(PICTURE + 0.1 * inside(1), PICTURE, LABELS, 6)
    mirrored = PICTURE.clone()
    mirrored[:, :, :12, :12] = PICTURE[:, :, :12, :12].flip(3)
    assert tinted > 0.03
    assert region_loss(mirrored, PICTURE, LABELS, 6) == pytest.approx(0, abs=1e-5)


def test_a_flattened_pattern_costs_though_its_mean_is_right() -> None:
    flat = PICTURE.clone()
    flat[:, :, :12, :12] = PICTURE[:, :, :12, :12].mean((2, 3), keepdim=True)
    assert region_loss(flat, PICTURE, LABELS, 6) > 0.05


def test_a_region_of_a_few_pixels_is_left_out() -> None:
    assert region_loss(PICTURE + inside(4), PICTURE, LABELS, 6) == 0


def test_a_heavier_pixel_costs_more() -> None:
    even, heavy = torch.ones(2, 1, 32, 24), 1 + 8 * inside(1)
    wrong = PICTURE + 0.5 * inside(1)
    assert weighted_loss(wrong, PICTURE, heavy) > 3 * weighted_loss(wrong, PICTURE, even)
