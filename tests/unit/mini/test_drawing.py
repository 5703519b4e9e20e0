"""The drawn world: same seed, same bytes; the truth changes clothes only; labels and points tell what was drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastfit_watch.domain.look import Category, outfit_conflict
from fastfit_watch.mini.drawing.body import draw_person_traits
from fastfit_watch.mini.drawing.figures import draw_garment, draw_look, draw_person
from fastfit_watch.mini.drawing.people import PARTS
from fastfit_watch.mini.drawing.wardrobe import draw_garment_traits

SUBSETS = [
    {Category.UPPER},
    {Category.LOWER},
    {Category.DRESS},
    {Category.SHOE},
    {Category.BAG},
    {Category.UPPER, Category.LOWER},
    {Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG},
    {Category.DRESS, Category.SHOE, Category.BAG},
]


def test_same_seed_same_bytes_and_other_seed_other_picture() -> None:
    one, again, other = draw_look(5), draw_look(5), draw_look(6)
    assert one.person.tobytes() == again.person.tobytes() and one.truth.tobytes() == again.truth.tobytes()
    assert one.person.tobytes() != other.person.tobytes()


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda subset: "+".join(sorted(subset)))
def test_every_given_garment_is_drawn_alone_and_worn(subset: set[Category]) -> None:
    look = draw_look(11, subset)
    assert set(look.garments) == subset
    for category, picture in look.garments.items():
        assert picture.shape == ((128, 96, 3) if category.is_accessory else (256, 192, 3))
        assert picture.std() > 5
        assert (look.worn == category.label + 1).sum() > 40, "it is seen in the truth"


def test_the_map_of_a_flat_lay_has_its_white_soles_too() -> None:
    paper, soles = np.array([246, 245, 243]), 0
    for seed in range(20):
        look = draw_look(seed, {Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG})
        for category, picture in look.garments.items():
            laid = look.laid[category] > 0
            differs = np.abs(picture.astype(int) - paper).max(2)
            assert laid.shape == picture.shape[:2]
            outside = ~cv2.dilate(laid.astype(np.uint8), np.ones((3, 3))).astype(bool)
            # The inside of a neck is no part of it; strokes may cross the edge a little.
            assert (differs[outside] > 10).mean() < (0.03 if category is Category.UPPER else 0.01)
            soles += int((laid & (differs <= 10)).sum()) if category is Category.SHOE else 0
    assert soles > 200, "sneakers have soles as white as the paper"


def test_random_outfits_are_always_wearable() -> None:
    outfits = [set(draw_look(seed).garments) for seed in range(40)]
    assert all(outfit and outfit_conflict(outfit) is None for outfit in outfits)
    assert len({frozenset(outfit) for outfit in outfits}) > 4


def test_a_new_top_changes_nothing_else() -> None:
    for seed in range(6):
        look = draw_look(seed, {Category.UPPER})
        changed = (look.person != look.truth).any(axis=2)
        rows = np.flatnonzero(changed.any(axis=1))
        face = look.lip == 13
        shoes = (look.lip == 18) | (look.lip == 19)
        assert not changed[shoes].any()
        assert rows[-1] < 0.75 * 256, "nothing below the hips"
        assert changed[face].mean() < 0.5, "only the neck line"
        assert not changed[:, :8].any() and not changed[:, -8:].any()


def test_labels_agree_and_lie_in_their_ranges() -> None:
    look = draw_look(3)
    assert look.lip.max() < 20 and look.atr.max() < 18 and look.densepose.max() <= 24
    for labels in (look.lip, look.atr, look.densepose):
        assert not labels[0, 0] and not labels[-1, -1]
    head = np.isin(look.densepose, (23, 24))
    face = cv2.erode(((look.lip == 13) & (np.arange(256)[:, None] < 50)).astype(np.uint8), np.ones((3, 3))) > 0
    assert face.any() and head[face].mean() > 0.8


def test_body_points_lie_on_their_parts() -> None:
    look = draw_look(9, {Category.UPPER})
    for point, side, part in ((4, "right", "hand"), (7, "left", "hand"), (10, "right", "calf"), (12, "left", "thigh")):
        x, y = look.keypoints[point].round().astype(int)
        around = look.densepose[y - 6 : y + 7, x - 6 : x + 7]
        assert PARTS[side][part] in around, (point, side, part)
    assert (look.scores[:18] == 1).all() and (look.scores[18:] == 0).all() and (look.keypoints[18:] == -1).all()


def test_size_changes_the_scale_only() -> None:
    small, large = draw_look(4), draw_look(4, size=(512, 384))
    reduced = cv2.resize(large.person, (192, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - small.person).mean() < 4


def test_uploads_for_the_demo_come_at_any_size() -> None:
    assert draw_person(1, (1024, 768)).shape == (1024, 768, 3)
    assert draw_garment(2, Category.BAG, (512, 384)).shape == (512, 384, 3)


def test_the_truth_has_labels_of_its_own() -> None:
    look = draw_look(12, {Category.DRESS})
    assert (look.truth_lip[look.worn == Category.DRESS.label + 1] == 6).all()
    ground = (look.truth_lip == 0) & (look.worn == 0)
    changed = (look.person != look.truth).any(axis=2)
    assert ground[0].all() and not ground[changed & (look.lip == 0)].all()


def test_hands_have_fingers_that_lie_beside_each_other() -> None:
    """Across the fingers of a hand that hangs down, skin and the lines between fingers take turns."""
    lines = 0
    for seed in range(30):
        look = draw_look(seed, {Category.SHOE}, size=(1024, 768))
        elbow, wrist = look.keypoints[3], look.keypoints[4]
        along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        height = (look.keypoints[10, 1] - look.keypoints[0, 1]) / 0.86
        across = np.array([along[1], -along[0]])
        places = wrist + 0.045 * height * along + np.linspace(-0.02, 0.02, 81)[:, None] * height * across
        row = look.person[places[:, 1].astype(int), places[:, 0].astype(int)].astype(int).sum(1)
        skin = np.isin(look.lip[places[:, 1].astype(int), places[:, 0].astype(int)], (14, 15))
        dark = skin & (row < row[skin].max(initial=0) * 0.9)
        lines += int((np.diff(dark.astype(int)) == 1).sum() >= 2)
    assert lines >= 10  # a plain hand has none; some hands are dark, or lie before the body


def test_figures_are_varied() -> None:
    """Among a hundred looks; the world must not become simpler than this, or results would look better for nothing."""
    rng = np.random.default_rng(1)
    people = [draw_person_traits(rng) for _ in range(100)]
    garments = {slot: [draw_garment_traits(rng, slot) for _ in range(100)] for slot in Category}
    assert len({person.hair_style for person in people}) == 9
    assert len({(person.skin, person.hair) for person in people}) > 35
    wrists = np.array([person.at("right_wrist") for person in people])
    assert wrists.std(0).min() > 0.015 and np.ptp([person.build for person in people]) > 0.2
    assert {slot: len({garment.kind for garment in found}) for slot, found in garments.items()} == {
        Category.UPPER: 5,
        Category.LOWER: 3,
        Category.DRESS: 1,
        Category.SHOE: 3,
        Category.BAG: 3,
    }
    worn = [garment for found in garments.values() for garment in found]
    assert len({garment.fabric.kind for garment in worn}) == 9
    for slot, lengths in ((Category.UPPER, "sleeve"), (Category.LOWER, "hem"), (Category.DRESS, "hem")):
        values = [round(getattr(garment, lengths), 2) for garment in garments[slot]]
        assert len(set(values)) > 18 and np.ptp(values) > 0.25, slot
