"""Crops, fits, adjustment and paste-back against measured vectors, and `restore` against what it promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.engine.pixels import cover_person, mask_to_tensor, to_tensor
from fastfit_watch.engine.preprocessing.geometry import (
    Adjustment,
    adjust,
    box_feather,
    crop_to_ratio,
    pad_to,
    paste_back,
    ratio_box,
    restore,
    stretch,
)

CROP = (128, 96)
ADJUSTED = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11)
PASTED = (5, 9)


@cache
def golden() -> dict[str, NDArray[np.generic]]:
    with np.load(Path(__file__).parents[3] / "golden" / "geometry.npz") as stored:
        return dict(stored)


def picture(name: str) -> Image.Image:
    return Image.fromarray(golden()[name].astype(np.uint8))


def same(image: Image.Image, name: str) -> bool:
    return np.array_equal(np.asarray(image), golden()[name])


PREPARATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "crop34": crop_to_ratio,
    "crop34_lanczos_96x128": lambda image: stretch(crop_to_ratio(image), CROP),
    "pad_72x96": lambda image: pad_to(image, (96, 72)),
    "pad_96x64": lambda image: pad_to(image, (64, 96)),
    "stretch_48x64_lanczos": lambda image: stretch(image, (64, 48)),
}


@pytest.mark.parametrize("name", PREPARATIONS)
@pytest.mark.parametrize("index", range(5))
def test_a_preparation_is_exact(index: int, name: str) -> None:
    assert same(PREPARATIONS[name](picture(f"s{index}_in")), f"s{index}_{name}")


@pytest.mark.parametrize("slot", ["upper", "lower", "shoe"])
def test_a_reference_is_stretched_to_its_size(slot: str) -> None:
    prepared = np.asarray(stretch(picture(f"prep_in_{slot}"), (512, 384)))
    place = ["upper", "lower", "overall", "shoe", "bag"].index(slot)
    assert prepared.mean() == pytest.approx(float(golden()["prep_mean"][place]), abs=1e-9)
    if f"prep_{slot}_strided4" in golden():
        assert np.array_equal(prepared[::4, ::4], golden()[f"prep_{slot}_strided4"])


def test_pixels_reach_the_model_in_the_measured_ranges() -> None:
    person = np.asarray(picture("s0_in"))
    everywhere = np.full(person.shape[:2], 255, np.uint8)
    assert np.array_equal(to_tensor(person).numpy(), golden()["s0_unit_norm"])
    assert np.array_equal(cover_person(person, everywhere, person).numpy(), golden()["s0_unit_01"])
    mask = golden()["mask_binarise_in"].astype(np.uint8)
    assert np.array_equal(mask_to_tensor(mask).numpy(), golden()["mask_binarise_out"])


@pytest.mark.parametrize("index", ADJUSTED)
def test_adjust_is_exact(index: int) -> None:
    width, height = golden()[f"a{index}_target"].tolist()
    adjusted = adjust(picture(f"a{index}_in"), picture(f"a{index}_mask"), (height, width))
    assert list(adjusted.box) == golden()[f"a{index}_box"].tolist()
    assert list(reversed(adjusted.scaled_size)) == golden()[f"a{index}_scaled_size_wh"].tolist()
    assert same(adjusted.crop, f"a{index}_crop")
    assert same(adjusted.crop_mask, f"a{index}_cropmask")


def test_adjust_places_the_box_exactly_at_full_size() -> None:
    for row in golden()["boxes_768x1024"].tolist():
        (width, height), region, (scaled_width, scaled_height), box = row[:2], row[2:6], row[6:8], row[8:]
        mask = Image.new("L", (width, height), 0)
        mask.paste(1, tuple(region))
        adjusted = adjust(Image.new("L", (width, height)), mask, (1024, 768))
        assert adjusted.scaled_size == (scaled_height, scaled_width)
        assert list(adjusted.box) == box


@pytest.mark.parametrize("feather_px", [50, 8])
@pytest.mark.parametrize("index", PASTED)
def test_paste_back_is_exact(index: int, feather_px: int) -> None:
    adjusted = adjust(picture(f"a{index}_in"), picture(f"a{index}_mask"), CROP)
    scaled = stretch(picture(f"a{index}_in"), adjusted.scaled_size)
    assert same(scaled, f"a{index}_scaled")
    assert same(box_feather(adjusted.scaled_size, adjusted.box, feather_px), f"a{index}_feather{feather_px}_mask")
    result = picture(f"a{index}_paste_in")
    pasted = paste_back(scaled, result, adjusted.box, feather_px)
    assert same(pasted, f"a{index}_feather{feather_px}_out")


def test_an_empty_mask_is_an_error() -> None:
    with pytest.raises(EngineError, match="mask is empty"):
        adjust(Image.new("RGB", (60, 80)), Image.new("L", (60, 80)), CROP)


@pytest.mark.parametrize(("size", "box"), [((1024, 768), (0, 0, 768, 1024)), ((90, 160), (46, 0, 113, 90))])
def test_ratio_box_is_the_largest_centred_one(size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert ratio_box(size) == box


def smooth_picture(height: int, width: int) -> Image.Image:
    """Slow waves: resampling them twice changes little, shifting them by a pixel changes much."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / 9 + phase) * np.cos(y / 11) for phase in (0, 1, 2)]
    return Image.fromarray(np.stack(waves, axis=2).astype(np.uint8))


def adjust_region(image: Image.Image, region: tuple[int, int, int, int]) -> Adjustment:
    mask = Image.new("L", image.size, 0)
    mask.paste(255, region)
    return adjust(image, mask, CROP)


def box_in_original(image: Image.Image, adjusted: Adjustment) -> tuple[float, float, float, float]:
    across, down = image.width / adjusted.scaled_size[1], image.height / adjusted.scaled_size[0]
    box = adjusted.box
    return box.left * across, box.top * down, box.right * across, box.bottom * down


def test_a_tiny_region_of_a_large_picture_is_cut_without_scaling_the_whole() -> None:
    image = smooth_picture(1500, 2000)
    adjusted = adjust_region(image, (900, 700, 910, 712))
    assert adjusted.scaled_size[0] * adjusted.scaled_size[1] > 2**28
    left, top, right, bottom = box_in_original(image, adjusted)
    expected = image.resize((96, 128), Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    difference = np.asarray(adjusted.crop).astype(int) - np.asarray(expected)
    assert np.abs(difference[8:-8, 8:-8]).max() <= 2
    assert np.asarray(adjusted.crop_mask)[64, 48] == 255


@pytest.mark.parametrize("factor", [0.5, 3])
def test_a_crop_cut_with_its_surroundings_equals_one_cut_from_the_whole(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Grain shows a wrong neighbourhood; its contrast is low, so that neither way of cutting clips.
    grain = np.random.default_rng(5).integers(100, 156, (int(300 / factor), int(400 / factor), 3), dtype=np.uint8)
    left, top, right, bottom = (int(side / factor) for side in (150, 90, 240, 200))
    whole = adjust_region(Image.fromarray(grain), (left, top, right, bottom))
    monkeypatch.setattr("fastfit_watch.engine.preprocessing.geometry._WHOLE_PX", 0)
    piece = adjust_region(Image.fromarray(grain), (left, top, right, bottom))
    assert piece.box == whole.box
    assert np.abs(np.asarray(piece.crop).astype(int) - np.asarray(whole.crop)).max() <= 2


def test_restore_keeps_the_original_outside_the_box() -> None:
    image = smooth_picture(400, 500)
    adjusted = adjust_region(image, (200, 150, 260, 230))
    restored = np.asarray(restore(image, adjusted, Image.new("RGB", (96, 128), (255, 0, 0)), 8))
    left, top, right, bottom = box_in_original(image, adjusted)
    outside = np.ones((400, 500), bool)
    outside[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = False
    assert restored.shape == (400, 500, 3)
    assert np.array_equal(restored[outside], np.asarray(image)[outside])
    assert (restored[150:230, 200:260] == (255, 0, 0)).all(), "the repainted region is wholly the result's"


@pytest.mark.parametrize("region", [(200, 150, 260, 230), (20, 20, 450, 390), (0, 0, 500, 400), (430, 10, 500, 90)])
def test_restore_puts_every_pixel_where_it_was(region: tuple[int, int, int, int]) -> None:
    image = smooth_picture(400, 500)
    adjusted = adjust_region(image, region)
    restored = np.asarray(restore(image, adjusted, adjusted.crop, 8)).astype(int)
    assert np.abs(restored - np.asarray(image)).mean() < 1.5
    left, top, right, bottom = region
    shifted = np.roll(np.asarray(image), 1, axis=1).astype(int)
    inside = np.s_[top + 8 : bottom - 8, left + 8 : right - 8]
    assert np.abs(restored - np.asarray(image))[inside].mean() * 3 < np.abs(restored - shifted)[inside].mean()


@pytest.mark.parametrize("upside_down", [False, True])
def test_restore_fades_at_inner_sides_and_not_at_the_border(upside_down: bool) -> None:
    image = Image.new("RGB", (300, 400), (0, 0, 0))
    adjusted = adjust_region(image, (120, 340, 180, 400) if upside_down else (120, 0, 180, 60))
    unmasked = replace(adjusted, mask=Image.new("L", image.size))
    restored = np.asarray(restore(image, unmasked, Image.new("RGB", (96, 128), (255, 255, 255)), 10))[:, :, 0]
    column = restored[::-1, 150] if upside_down else restored[:, 150]
    inside = column[column > 0].astype(int)
    assert 60 < inside.size < 120, "the box, and nothing but the box"
    assert inside[0] == 255, "no fade at the border of the picture"
    assert (np.diff(inside) <= 0).all()
    assert 110 < inside[-1] < 160, "half of it at an inner side, as a blurred step"


def test_restore_reaches_the_border_although_the_crop_is_rounded() -> None:
    for height in range(380, 420):
        image = Image.new("RGB", (600, height), (0, 0, 0))
        adjusted = adjust_region(image, (100, 83, 210, height))
        restored = np.asarray(restore(image, adjusted, Image.new("RGB", (96, 128), (255, 255, 255)), 10))
        assert (restored[83:height, 100:210] == 255).all()
