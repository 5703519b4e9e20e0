"""Drawn people and garments with the exact truth: who wears what, every label, every body point."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.drawing.body import Person, draw_person_traits, flat_pose
from fastfit_watch.mini.drawing.canvas import Canvas, flat
from fastfit_watch.mini.drawing.fabric import shade
from fastfit_watch.mini.drawing.people import (
    body_points,
    draw_arm,
    draw_hair_back,
    draw_hand,
    draw_head,
    draw_legs,
    draw_trunk,
    draw_wall,
    mark_body,
)
from fastfit_watch.mini.drawing.wardrobe import (
    Garment,
    draw_garment_traits,
    dress_arm,
    dress_legs,
    dress_torso,
    hang_bag,
    put_on_shoe,
    trim_neck,
)

Picture = NDArray[np.uint8]
Size = tuple[int, int]

OUTFITS = (
    (frozenset({Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG}), 0.3),
    (frozenset({Category.DRESS, Category.SHOE, Category.BAG}), 0.25),
)
_U, _L, _D, _S, _B = Category
REST = tuple(
    frozenset(base) | frozenset(extra)
    for base in ((_U,), (_L,), (_U, _L), (_D,), ())
    for extra in ((), (_S,), (_B,), (_S, _B))
    if (base or extra) and frozenset(base) | frozenset(extra) not in [outfit for outfit, _ in OUTFITS]
)
SHOE_LABELS = {"right": (19, 10), "left": (18, 9)}


@dataclass(frozen=True)
class DrawnLook:
    """A person before and after; all pictures uint8 RGB.

    person, truth (H, W, 3): the same person in present clothes and in the given garments. garments: flat-lays.
    laid: 1 where a flat-lay shows its garment, else 0, at the flat-lay's size.
    densepose, lip, atr (H, W): labels of `person`. worn (H, W): label + 1 of the garment seen in `truth`, or 0.
    truth_lip (H, W): LIP labels of `truth`; where they and `worn` are 0 is background.
    keypoints float32 (134, 2): pixels (x, y) of `person`, -1 where not given. scores (134,): 1 where given.
    """

    person: Picture
    truth: Picture
    garments: Mapping[Category, Picture]
    laid: Mapping[Category, Picture]
    densepose: Picture
    lip: Picture
    atr: Picture
    worn: Picture
    truth_lip: Picture
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]


def draw_look(
    seed: int,
    categories: Collection[Category] | None = None,
    size: Size = (256, 192),
    garment_size: Size = (256, 192),
    accessory_size: Size = (128, 96),
) -> DrawnLook:
    """Draw a look. The same seed gives the same bytes. categories: None draws the outfit at random."""
    rng = np.random.default_rng(seed)
    given = frozenset(categories) if categories is not None else draw_outfit(rng)
    person, frame, wall = draw_person_traits(rng), draw_frame(rng), rng.integers(2**31)
    separates = _D not in given and (bool(given & {_U, _L}) or rng.random() < 0.65)
    present = {c: draw_garment_traits(rng, c) for c in ((_U, _L) if separates else (_D,))}
    present[_S] = draw_garment_traits(rng, _S)
    if rng.random() < 0.4:
        present[_B] = draw_garment_traits(rng, _B)
    chosen = {c: draw_garment_traits(rng, c) for c in Category if c in given}
    after = {c: g for c, g in present.items() if not (_D in given and c in (_U, _L))} | chosen
    ground = draw_ground(person, size, frame, int(wall))
    before = draw_figure(person, present, copy.deepcopy(ground))
    later = draw_figure(person, after, ground)
    points, scores = body_points(person, before)
    flat_lays = {c: draw_flat(g, accessory_size if c.is_accessory else garment_size) for c, g in chosen.items()}
    return DrawnLook(
        before.picture(),
        later.picture(),
        {category: canvas.picture() for category, canvas in flat_lays.items()},
        {category: canvas.labels["worn"] for category, canvas in flat_lays.items()},
        before.labels["densepose"],
        before.labels["lip"],
        before.labels["atr"],
        later.labels["worn"],
        later.labels["lip"],
        points,
        scores,
    )


def draw_person(seed: int, size: Size = (1024, 768)) -> Picture:
    """A person in present clothes, uint8 (H, W, 3), to be dressed."""
    rng = np.random.default_rng(seed)
    person, frame, wall = draw_person_traits(rng), draw_frame(rng), int(rng.integers(2**31))
    clothes = {c: draw_garment_traits(rng, c) for c in ((_U, _L, _S) if rng.random() < 0.7 else (_D, _S))}
    return draw_figure(person, clothes, draw_ground(person, size, frame, wall)).picture()


def draw_garment(seed: int, category: Category, size: Size) -> Picture:
    """The flat-lay of a random garment, uint8 (h, w, 3)."""
    return draw_flat(draw_garment_traits(np.random.default_rng(seed), category), size).picture()


def draw_outfit(rng: np.random.Generator) -> frozenset[Category]:
    """Which slots a look gives: mostly whole outfits."""
    pick = rng.random()
    for outfit, share in OUTFITS:
        if pick < share:
            return outfit
        pick -= share
    return REST[int(rng.integers(len(REST)))]


def draw_frame(rng: np.random.Generator) -> tuple[float, float, float]:
    """Height of the person and place of the head, as shares of the picture's height and width."""
    height = float(rng.uniform(0.82, 0.92))
    top = float(rng.uniform(0.035, 0.97 - height - 0.01))
    return height, float(rng.uniform(0.46, 0.54)), top


def draw_ground(person: Person, size: Size, frame: tuple[float, float, float], wall: int) -> Canvas:
    """Paint what is behind a person, and mark the body under the clothes."""
    height, across, top = frame
    canvas = Canvas(size, (across * size[1], top * size[0]), height * size[0], ("lip", "atr", "densepose", "worn"))
    draw_wall(canvas, wall)
    mark_body(canvas, person)
    return canvas


def draw_figure(person: Person, clothes: Mapping[Category, Garment], canvas: Canvas) -> Canvas:
    """Paint a dressed person and all label maps on a ground."""
    draw_hair_back(canvas, person)
    draw_legs(canvas, person)
    if (shoe := clothes.get(_S)) is not None:
        for side, (lip, atr) in SHOE_LABELS.items():
            put_on_shoe(canvas, person.joints, side, shoe, {"lip": lip, "atr": atr, "worn": 4})
    draw_trunk(canvas, person)
    if (lower := clothes.get(_L)) is not None:
        dress_legs(
            canvas,
            person.joints,
            person.build,
            lower,
            {"lip": 9, "atr": 6, "worn": 2},
            {"lip": 12, "atr": 5, "worn": 2},
        )
    top_piece = clothes.get(_U) or clothes[_D]
    top_labels = {"lip": 5, "atr": 4, "worn": 1} if top_piece.category is _U else {"lip": 6, "atr": 7, "worn": 3}
    dress_torso(canvas, person.joints, person.build, top_piece, top_labels)
    trim_neck(canvas, person.joints, top_piece, person.skin, {"lip": 13, "atr": 11, "worn": 0})
    if (bag := clothes.get(_B)) is not None:
        hang_bag(
            canvas,
            person.at("right_shoulder") + (0.03, -0.005),
            person.at("pelvis") + (0.072 * person.build, 0.03),
            bag,
            {"atr": 16, "worn": 5},
        )
    for side in ("right", "left"):
        draw_arm(canvas, person, side)
        dress_arm(canvas, person.joints, person.build, side, top_piece, top_labels)
        draw_hand(canvas, person, side)
    draw_head(canvas, person)
    return canvas


def draw_flat(garment: Garment, size: Size) -> Canvas:
    """A flat-lay: the garment alone on a light ground, and the map `worn` with 1 where it lies."""
    pose, worn = flat_pose(), {"worn": 1}
    scale, centre = {
        _U: (1.5, (0.0, 0.37)),
        _L: (1.45, (0.0, 0.69)),
        _D: (1.12, (0.0, 0.55)),
        _S: (3.6, (0.0, 0.945)),
        _B: (3.1, (0.045, 0.4)),
    }[garment.category]
    pixels = scale * size[0] * 0.87
    canvas = Canvas(size, (size[1] / 2 - centre[0] * pixels, size[0] / 2 - centre[1] * pixels), pixels, ("worn",))
    canvas.cover(flat((246, 245, 243)))
    match garment.category:
        case Category.UPPER | Category.DRESS:
            for side in ("right", "left"):
                dress_arm(canvas, pose, 1.0, side, garment, worn)
            dress_torso(canvas, pose, 1.0, garment, worn)
            trim_neck(canvas, pose, garment, shade(garment.fabric.base, 0.5), {"worn": 1}, is_worn=False)
        case Category.LOWER:
            dress_legs(canvas, pose, 1.0, garment, worn, worn)
        case Category.SHOE:
            pose |= {
                f"{s}_{j}": np.array(p)
                for s, sg in (("right", -1), ("left", 1))
                for j, p in (("ankle", (sg * 0.045, 0.945)), ("toe", (sg * 0.062, 0.979)))
            }
            for side in ("right", "left"):
                put_on_shoe(canvas, pose, side, garment, worn)
        case Category.BAG:
            hang_bag(canvas, np.array([0.0, 0.26]), np.array([0.045, 0.44]), garment, worn)
    return canvas
