"""The background inside a mask made to continue what is outside: by how much, and what stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny_networks import load_engine, write_bundle
from unit.engine.test_tryon import OPTIONS, OUTFIT, PERSON

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.engine.blending import Blend, level_background
from fastfit_watch.engine.bundle import Bundle
from fastfit_watch.engine.pixels import Pixels

ROWS, COLUMNS = np.mgrid[:96, :72]
WALL = np.stack([200 + COLUMNS * 0.3, 190 + ROWS * 0.2, 180 - ROWS * 0.1], 2).round().astype(np.uint8)
MASK = np.zeros((96, 72), np.uint8)
MASK[20:80, 15:60] = 255
PERSON_THERE = np.zeros((96, 72), bool)
PERSON_THERE[30:70, 28:45] = True
INSIDE = MASK > 0


def made(shade: tuple[float, float, float] = (6, -5, 4), across: float = 0.1) -> Pixels:
    """A wall of another shade, which drifts from left to right, behind a dark person."""
    wall = WALL + np.array(shade) + across * COLUMNS[..., None]
    return np.clip(np.where(PERSON_THERE[..., None], (40, 50, 60), wall), 0, 255).round().astype(np.uint8)


def error(picture: Pixels) -> float:
    return float(np.abs(picture.astype(int) - WALL)[INSIDE & ~PERSON_THERE].mean())


def test_a_wall_of_another_shade_is_brought_to_that_outside() -> None:
    levelled = level_background(made(), WALL, MASK, ~PERSON_THERE)
    assert error(made()) > 5 and error(levelled) < 0.6


def test_detail_of_the_background_stays() -> None:
    grain = np.random.default_rng(1).integers(-8, 9, WALL.shape)
    grainy = np.clip(made().astype(int) + grain * INSIDE[..., None], 0, 255).astype(np.uint8)
    levelled = level_background(grainy, WALL, MASK, ~PERSON_THERE)
    left = (levelled.astype(int) - level_background(made(), WALL, MASK, ~PERSON_THERE)) - grain
    assert np.abs(left[INSIDE & ~PERSON_THERE]).mean() < 1


def test_the_person_and_all_outside_the_mask_stay_as_they_are() -> None:
    levelled = level_background(made(), WALL, MASK, ~PERSON_THERE)
    assert np.array_equal(levelled[~INSIDE], made()[~INSIDE])
    assert np.array_equal(levelled[36:64, 34:39], made()[36:64, 34:39])


def test_without_background_around_the_mask_nothing_is_known_and_nothing_changes() -> None:
    assert np.array_equal(level_background(made(), WALL, MASK, np.zeros_like(INSIDE)), made())


def test_a_bundle_says_how_its_pictures_join_the_photograph(tmp_path: Path) -> None:
    root = write_bundle(tmp_path)
    assert Bundle.open(root).blend is Blend.PUBLISHED
    settings = (root / "bundle.json").read_text()
    (root / "bundle.json").write_text(settings.replace('"parser"', '"blend": "seamless", "parser"'))
    assert Bundle.open(root).blend is Blend.SEAMLESS
    (root / "bundle.json").write_text(settings.replace('"parser"', '"blend": "smooth", "parser"'))
    with pytest.raises(BundleError, match="unknown blend 'smooth'"):
        Bundle.open(root)


def test_seamless_changes_pictures_inside_the_mask_alone(tmp_path: Path) -> None:
    engine = load_engine(write_bundle(tmp_path))
    prepared = engine.prepare(PERSON, OUTFIT, OPTIONS)
    published = np.asarray(engine.sample(prepared).image)
    result = replace(engine, bundle=replace(engine.bundle, blend=Blend.SEAMLESS)).sample(prepared)
    seamless, outside = np.asarray(result.image), prepared.mask < 128
    assert "blend" in result.seconds
    assert not np.array_equal(seamless, published)
    assert np.array_equal(seamless[outside], published[outside])
