"""Published masks bit for bit against measured vectors; our own `worn_mask` against what it promises."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.domain.look import Category, MaskMode
from fastfit_watch.engine.parsers.parsing import Parsing
from fastfit_watch.engine.preprocessing.labels import select_atr, select_clothes, select_lip, select_parts
from fastfit_watch.engine.preprocessing.mask import Part, agnostic_mask, full_mask, part_mask, worn_mask
from fastfit_watch.engine.preprocessing.regions import dilate_by, drop_specks

Labels = NDArray[np.uint8]
CASES = range(12)
DRESSED, LONG_DRESS, CARRIES_BAG, AT_EDGE, CLOSE_UP, EMPTY = 0, 2, 5, 7, 8, 10
SHOES = {"left-shoe", "right-shoe"}


@cache
def golden() -> dict[str, NDArray[np.generic]]:
    with np.load(Path(__file__).parents[3] / "golden" / "masks.npz") as stored:
        return dict(stored)


def labels(index: int, step: int = 1) -> tuple[Labels, Labels, Labels]:
    """DensePose, LIP and ATR of one drawn person, 1024 x 768; every `step`-th pixel."""
    densepose, lip, atr = (
        golden()[f"c{index:02}_{kind}"].astype(np.uint8)[::step, ::step] for kind in ("densepose", "lip", "atr")
    )
    return densepose, lip, atr


def parsing(index: int, step: int = 1) -> Parsing:
    maps = labels(index, step)
    return Parsing(np.zeros((*maps[0].shape, 3), np.uint8), *maps)


def pieces(region: NDArray[np.bool_]) -> int:
    count: int = cv2.connectedComponents(region.astype(np.uint8))[0]
    return count - 1


@pytest.mark.parametrize("index", CASES)
def test_full_mask_is_bit_exact(index: int) -> None:
    maps = labels(index)
    expanded = full_mask(*maps, square=True, horizon_expand=True, rng=np.random.RandomState(1000 + index))
    assert np.array_equal(full_mask(*maps), golden()[f"c{index:02}_multi"])
    assert np.array_equal(full_mask(*maps, square=True), golden()[f"c{index:02}_multi_square"])
    assert np.array_equal(expanded, golden()[f"c{index:02}_multi_square_hx"])


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("index", CASES)
def test_part_mask_is_bit_exact(index: int, part: Part) -> None:
    maps = labels(index)
    assert np.array_equal(part_mask(part, *maps), golden()[f"c{index:02}_{part}"])
    assert np.array_equal(part_mask(part, *maps, square=True), golden()[f"c{index:02}_{part}_square"])


def test_expansion_draws_only_for_a_square() -> None:
    rng = np.random.default_rng(1)
    full_mask(*labels(DRESSED, 4), horizon_expand=True, rng=rng)
    assert rng.uniform() == np.random.default_rng(1).uniform()
    with pytest.raises(ValueError, match="rng"):
        full_mask(*labels(DRESSED, 4), square=True, horizon_expand=True)


def test_a_side_that_is_no_multiple_of_4_is_an_error() -> None:
    densepose, lip, atr = (np.zeros((256, 190), np.uint8) for _ in range(3))
    with pytest.raises(EngineError, match="height 256, width 190: both must be multiples of 4"):
        full_mask(densepose, lip, atr)
    with pytest.raises(EngineError, match="multiples of 4"):
        part_mask("upper", densepose, lip, atr)


def test_maps_of_different_sizes_are_an_error() -> None:
    densepose, lip, atr = labels(DRESSED)
    with pytest.raises(EngineError, match="differ in size"):
        full_mask(densepose, lip[:512], atr)


@pytest.mark.parametrize("name", ["full", Part.UPPER, Part.LOWER, Part.OVERALL])
def test_small_pictures_get_the_same_mask_smaller(name: str) -> None:
    maps = labels(DRESSED, 4)
    small = full_mask(*maps) if name == "full" else part_mask(name, *maps)
    large = full_mask(*labels(DRESSED)) if name == "full" else part_mask(name, *labels(DRESSED))
    ours, expected = small > 0, large[::4, ::4] > 0
    assert small.shape == (256, 192)
    assert set(np.unique(small)) == {0, 255}
    assert (ours & expected).sum() / (ours | expected).sum() > 0.85


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("index", CASES)
def test_face_and_hair_are_never_repainted(index: int, step: int) -> None:
    _, lip, atr = labels(index, step)
    head = (select_lip(lip, {"face"}) | select_clothes(lip, atr, {"hair"})) > 0
    mask = worn_mask(list(Category), parsing(index, step))
    assert not mask[head].any()
    assert head.any() or index == EMPTY


def test_a_new_shirt_leaves_the_trousers_alone() -> None:
    densepose, lip, atr = labels(DRESSED)
    upper = worn_mask({Category.UPPER}, parsing(DRESSED)) > 0
    trousers = (select_lip(lip, {"pants"}) & select_atr(atr, {"pants"})) > 0
    shirt = (select_lip(lip, {"upper-clothes"}) & select_atr(atr, {"upper-clothes"})) > 0
    assert upper[shirt].mean() > 0.98
    assert upper[trousers].mean() < 0.05
    assert not upper[select_parts(densepose, {"feet"}) > 0].any()


def test_new_trousers_leave_the_shirt_alone() -> None:
    _, lip, atr = labels(DRESSED)
    lower = worn_mask({Category.LOWER}, parsing(DRESSED)) > 0
    assert lower[(select_lip(lip, {"pants"}) & select_atr(atr, {"pants"})) > 0].mean() > 0.98
    assert lower[(select_lip(lip, {"upper-clothes"}) & select_atr(atr, {"upper-clothes"})) > 0].mean() < 0.05


def test_a_dress_takes_the_overall_part() -> None:
    densepose, lip, atr = labels(LONG_DRESS)
    head = (select_lip(lip, {"face"}) | select_clothes(lip, atr, {"hair"})) > 0
    expected = np.where(head, 0, part_mask("overall", densepose, lip, atr))
    assert np.array_equal(worn_mask({Category.DRESS}, parsing(LONG_DRESS)), expected)


@pytest.mark.parametrize("pair", list(combinations(Category, 2)))
def test_several_slots_are_the_union(pair: tuple[Category, Category]) -> None:
    person = parsing(CARRIES_BAG)
    each = [worn_mask({category}, person) for category in pair]
    assert np.array_equal(worn_mask(pair, person), each[0] | each[1])


@pytest.mark.parametrize("step", [1, 4])
def test_shoes_are_two_pieces_around_the_feet(step: int) -> None:
    densepose, lip, atr = labels(DRESSED, step)
    mask = worn_mask({Category.SHOE}, parsing(DRESSED, step)) > 0
    rows = np.flatnonzero(mask.any(axis=1))
    shoes = select_lip(lip, SHOES) & select_atr(atr, SHOES)
    assert pieces(mask) == 2
    assert mask[shoes > 0].all()
    assert rows[0] > 0.75 * mask.shape[0], "specks of shoe elsewhere in the picture are not followed"
    margin = rows[-1] - np.flatnonzero(shoes.any(axis=1))[-1]
    assert 0.01 < margin / mask.shape[0] < 0.02
    assert mask[select_parts(densepose, {"torso", "thighs"}) > 0].mean() < 0.01


@pytest.mark.parametrize(("source", "label"), [("lip", 8), ("lip", 18), ("lip", 19), ("atr", 9), ("atr", 10)])
def test_either_map_alone_shows_a_shoe_or_sock(source: str, label: int) -> None:
    maps = {name: np.zeros((256, 192), np.uint8) for name in ("densepose", "lip", "atr")}
    maps[source][200:220, 80:100] = label
    mask = worn_mask({Category.SHOE}, Parsing(np.zeros((256, 192, 3), np.uint8), **maps))
    assert (mask[200:220, 80:100] == 255).all()
    assert np.count_nonzero(mask) < 30 * 30


@pytest.mark.parametrize("step", [1, 4])
def test_a_carried_bag_gives_its_place(step: int) -> None:
    _, _, atr = labels(CARRIES_BAG, step)
    mask = worn_mask({Category.BAG}, parsing(CARRIES_BAG, step)) > 0
    bag = cv2.boundingRect(cv2.morphologyEx(select_atr(atr, {"bag"}), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)))
    found = cv2.boundingRect(mask.astype(np.uint8))
    margin = 0.03 * mask.shape[0]
    assert pieces(mask) == 1
    assert bag[0] - found[0] == pytest.approx(margin, abs=2)
    assert found[2] - bag[2] == pytest.approx(2 * margin, abs=4)


@pytest.mark.parametrize("step", [1, 4])
def test_without_a_bag_there_is_room_beside_the_hips(step: int) -> None:
    person = parsing(DRESSED, step)
    densepose, lip = person.densepose.copy(), person.lip
    densepose[4:7, 4:7] = 1  # a speck of torso in the corner
    mask = worn_mask({Category.BAG}, replace(person, densepose=densepose)) > 0
    solid = cv2.morphologyEx(select_parts(densepose, {"torso"}), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    left, top, width, height = cv2.boundingRect(solid)
    hips = mask[top + height * 3 // 4]
    columns = np.flatnonzero(hips)
    assert hips[columns[0] : columns[-1] + 1].all()
    assert 0.25 * width < left - columns[0] < 0.6 * width
    assert 0.25 * width < columns[-1] - (left + width) < 0.6 * width
    chest = mask[top + height // 4]
    assert pieces(chest[None]) == 2, "a strap from each shoulder"
    assert chest.sum() < 0.5 * width
    assert not chest[:left].any()
    assert not chest[left + width :].any()
    assert pieces(mask) == 1
    assert not mask[select_lip(lip, SHOES) > 0].any()


def test_a_close_up_has_room_for_a_bag_and_none_for_shoes() -> None:
    assert worn_mask({Category.BAG}, parsing(CLOSE_UP)).any()
    assert not worn_mask({Category.SHOE}, parsing(CLOSE_UP)).any()
    with pytest.raises(EngineError, match="Nothing to repaint was found for shoe"):
        agnostic_mask(parsing(CLOSE_UP), {Category.SHOE}, MaskMode.WORN)


def test_nobody_gives_an_empty_mask_and_a_clear_error() -> None:
    nobody = Parsing(np.zeros((256, 192, 3), np.uint8), *(np.zeros((256, 192), np.uint8) for _ in range(3)))
    assert not worn_mask(list(Category), nobody).any()
    for mode in MaskMode:
        with pytest.raises(EngineError, match="Nothing to repaint was found for lower, upper"):
            agnostic_mask(nobody, {Category.UPPER, Category.LOWER}, mode)


def test_the_mode_chooses_the_mask() -> None:
    person = parsing(DRESSED)
    slots = {Category.UPPER}
    assert np.array_equal(agnostic_mask(person, slots, MaskMode.FULL), full_mask(*labels(DRESSED)))
    assert np.array_equal(agnostic_mask(person, slots, MaskMode.WORN), worn_mask(slots, person))


@pytest.mark.parametrize("seed", range(6))
def test_short_cuts_give_the_same_regions(seed: int) -> None:
    """Growing looks at the neighbourhood of a region only, and pieces are counted by us: as OpenCV on the whole."""
    noise = np.random.default_rng(seed).random((400, 300))
    region = np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5) > (0.5 + 0.03 * seed), np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))
    np.testing.assert_array_equal(dilate_by(region, 6), cv2.dilate(region, kernel))
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=8)
    large = [piece for piece in range(1, len(stats)) if stats[piece, cv2.CC_STAT_AREA] >= 0.0003 * region.size]
    np.testing.assert_array_equal(drop_specks(region), np.isin(pieces, large))


def test_labels_are_left_as_they_were() -> None:
    person = parsing(AT_EDGE)
    before = [np.array(labels) for labels in (person.densepose, person.lip, person.atr)]
    full_mask(person.densepose, person.lip, person.atr, square=True)
    worn_mask(list(Category), person)
    after = [person.densepose, person.lip, person.atr]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
