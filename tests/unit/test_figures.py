"""Drawn looks: repeatable, the same at every size, and true in every label."""

from __future__ import annotations

import hashlib
import pickle

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fastfit_watch.look import Category, outfit_conflict
from fastfit_watch.mini.fabric import Fabric, Pattern
from fastfit_watch.mini.figures import DrawnLook, draw_garment, draw_look, draw_person
from fastfit_watch.mini.wardrobe import Bottom, Dress, Top, choose_garment

SUBSETS = [
    subset
    for code in range(1, 32)
    if not outfit_conflict(subset := frozenset(each for each in Category if code >> each.label & 1))
]
SMALL_CHANGE = 2.0  # of 255: what a soft edge may add
# Body points whose DensePose part is certain, by their index: elbows and other joints lie on two parts.
PARTS_OF_POINTS = {
    0: {23, 24},
    1: {2},
    2: {16, 18, 2},
    3: {16, 18, 20, 22},
    4: {3, 20, 22},
    5: {15, 17, 2},
    6: {15, 17, 19, 21},
    7: {4, 19, 21},
    8: {2, 7, 9},
    9: {7, 9, 11, 13},
    10: {11, 13, 6},
    11: {2, 8, 10},
    12: {8, 10, 12, 14},
    13: {12, 14, 5},
    14: {23},
    15: {24},
    16: {23},
    17: {24},
}


def digest(look: DrawnLook) -> str:
    return hashlib.sha256(pickle.dumps(look)).hexdigest()


def changed(look: DrawnLook) -> NDArray[np.bool_]:
    """Pixels where the truth differs from the person."""
    return np.asarray(np.any(look.person != look.truth, axis=2))


def dominant(picture: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.median(picture[region].astype(np.float64), axis=0)


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert digest(draw_look(5)) == digest(draw_look(5))
    assert np.array_equal(draw_person(3, (256, 192)), draw_person(3, (256, 192)))
    first, second = (draw_garment(9, Category.SHOE, (128, 96)) for _ in range(2))
    assert np.array_equal(first, second)


def test_different_seeds_give_different_looks() -> None:
    assert len({digest(draw_look(seed)) for seed in range(12)}) == 12


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_outfit_can_be_drawn_and_is_worn(subset: frozenset[Category]) -> None:
    look = draw_look(17, subset)
    assert set(look.garments) == subset
    for category, picture in look.garments.items():
        assert picture.shape == ((128, 96, 3) if category.is_accessory else (256, 192, 3))
        assert np.count_nonzero(look.worn == category.label + 1) > 40
    for picture in (look.person, look.truth):
        assert picture.shape == (256, 192, 3) and picture.dtype == np.uint8
    assert changed(look).any()


@pytest.mark.parametrize("wrong", [(), (Category.DRESS, Category.UPPER)])
def test_an_impossible_outfit_is_refused(wrong: tuple[Category, ...]) -> None:
    with pytest.raises(ValueError, match=r"garment|dress"):
        draw_look(1, wrong)


def test_outfits_are_drawn_in_the_promised_shares() -> None:
    sizes = (16, 12)
    outfits = [frozenset(draw_look(seed, None, sizes, sizes, sizes).garments) for seed in range(400)]
    whole = {Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG}
    assert 0.22 < sum(outfit == whole for outfit in outfits) / 400 < 0.38
    assert 0.18 < sum(outfit == {Category.DRESS, Category.SHOE, Category.BAG} for outfit in outfits) / 400 < 0.32
    assert set(outfits) == set(SUBSETS)


@pytest.mark.parametrize("seed", range(8))
def test_a_new_top_leaves_everything_else_untouched(seed: int) -> None:
    look = draw_look(seed, {Category.UPPER})
    differs = changed(look)
    kept = np.isin(look.lip, [16, 17, 18, 19])  # legs and shoes
    assert not (differs & kept).any()
    assert not (differs & (look.lip == 13) & (cv2.erode(np.uint8(look.lip == 13), np.ones((7, 7))) > 0)).any()
    upper = (look.atr == 4) | np.isin(look.atr, [14, 15]) | (look.worn == 1)
    near = cv2.dilate(upper.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not (differs & ~near).any()


@pytest.mark.parametrize("seed", range(8))
def test_new_shoes_change_only_the_feet(seed: int) -> None:
    look = draw_look(seed, {Category.SHOE})
    rows = np.flatnonzero(changed(look).any(axis=1))
    ankles = look.keypoints[[10, 13], 1].min()
    assert rows.size and rows[0] > ankles - 12


@pytest.mark.parametrize("seed", range(16))
def test_labels_agree_with_each_other(seed: int) -> None:
    look = draw_look(seed)
    assert look.lip.max() <= 19 and look.atr.max() <= 17 and look.densepose.max() <= 24
    for labels in (look.lip, look.atr, look.densepose):
        assert not labels[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    face = look.lip == 13
    assert face.sum() > 200 and np.isin(look.densepose[face], [23, 24]).mean() > 0.99
    pairs = {2: 2, 13: 11, 5: 4, 6: 7, 9: 6, 12: 5, 14: 14, 15: 15, 16: 12, 17: 13, 18: 9, 19: 10, 0: 0}
    bag = look.atr == 16
    expected = np.vectorize(pairs.__getitem__)(look.lip)
    assert np.array_equal(expected[~bag], look.atr[~bag])
    # Background where nobody is: bodies, clothes and hair are all of somebody.
    assert not look.lip[(look.densepose == 0) & (cv2.dilate(look.densepose, np.ones((61, 61))) == 0)].any()


def test_both_sides_of_the_body_are_where_they_belong() -> None:
    look = draw_look(2, {Category.SHOE})
    for right, left, labels in (
        (19, 18, look.lip),
        (10, 9, look.atr),
        (23, 24, look.densepose),
        (3, 4, look.densepose),
    ):
        assert np.nonzero(labels == right)[1].mean() < np.nonzero(labels == left)[1].mean()


@pytest.mark.parametrize("seed", range(16))
def test_body_points_lie_on_their_parts(seed: int) -> None:
    look = draw_look(seed, size=(512, 384))
    assert (look.keypoints[18:] == -1).all() and not look.scores[18:].any() and (look.scores[:18] == 1).all()
    for index, parts in PARTS_OF_POINTS.items():
        x, y = np.rint(look.keypoints[index]).astype(int)
        assert int(look.densepose[y, x]) in parts, f"point {index}"


@pytest.mark.parametrize("seed", range(12))
def test_the_whole_person_is_in_the_picture(seed: int) -> None:
    look = draw_look(seed)
    rows, columns = np.nonzero(look.atr)
    assert rows.min() >= 1 and rows.max() <= 254 and columns.min() >= 1 and columns.max() <= 190
    assert 0.78 < (rows.max() - rows.min() + 1) / 256 < 0.96


def plain_seeds(category: Category) -> list[int]:
    """Seeds whose flat-lay has a plain fabric."""
    found = []
    for seed in range(60):
        garment = choose_garment(np.random.default_rng([seed, category.label]), category)
        fabric: Fabric | None = garment.fabric if isinstance(garment, Top | Bottom | Dress) else None
        if fabric is not None and fabric.pattern is Pattern.PLAIN:
            found.append(seed)
    return found


@pytest.mark.parametrize("category", [Category.UPPER, Category.LOWER, Category.DRESS])
def test_a_garment_keeps_its_colour_when_worn(category: Category) -> None:
    for seed in range(10):
        look = draw_look(seed, {category})
        flat = look.garments[category]
        lab = cv2.cvtColor(flat.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        lying = flat[np.linalg.norm(lab - lab[0, 0], axis=2) > 12]
        worn = look.truth[look.worn == category.label + 1]
        assert np.abs(lying.mean(axis=0) - worn.mean(axis=0)).max() < 24, f"seed {seed}"


def test_plain_cloth_shows_the_colour_it_was_given() -> None:
    seeds = plain_seeds(Category.UPPER)
    assert len(seeds) > 10
    for seed in seeds[:8]:
        garment = choose_garment(np.random.default_rng([seed, Category.UPPER.label]), Category.UPPER)
        assert isinstance(garment, Top)
        picture = draw_garment(seed, Category.UPPER, (256, 192))
        chest = np.zeros((256, 192), np.bool_)
        chest[110:150, 80:112] = True
        assert np.abs(dominant(picture, chest) - garment.fabric.ground).max() < 14


def test_patterns_survive_a_factor_eight_autoencoder() -> None:
    for seed in range(200):
        garment = choose_garment(np.random.default_rng(seed), Category.UPPER)
        assert isinstance(garment, Top)
        assert garment.fabric.period * 256 * 0.78 >= 10


@pytest.mark.parametrize("seed", range(6))
def test_size_does_not_matter(seed: int) -> None:
    small = draw_look(seed)
    large = draw_look(seed, size=(512, 384), garment_size=(512, 384), accessory_size=(256, 192))
    pairs = [(small.person, large.person), (small.truth, large.truth)]
    pairs += [(small.garments[each], large.garments[each]) for each in small.garments]
    for little, big in pairs:
        shrunk = cv2.resize(big, (little.shape[1], little.shape[0]), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk.astype(int) - little).mean() < SMALL_CHANGE
    assert np.mean(small.lip != large.lip[1::2, 1::2]) < 0.01
    assert np.allclose(small.keypoints[:18] * 2 + 0.5, large.keypoints[:18], atol=0.01)
