"""Drawn looks for the `mini` bundle: people, flat-lay garments and, exactly, the truth.

Everything follows from one seed: the same seed gives the same bytes at the same sizes. Lengths are in body units until
the last moment, so that any size shows the same picture.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfit_watch.look import Category, outfit_conflict
from fastfit_watch.mini.body import LEFT, RIGHT, Figure, Person, choose_person, lay_flat
from fastfit_watch.mini.canvas import Bytes, Canvas, Floats
from fastfit_watch.mini.clothes import draw_bottom, draw_dress, draw_sleeve, draw_top
from fastfit_watch.mini.hair import draw_hair_before, draw_hair_behind
from fastfit_watch.mini.labels import Surface, mark_body, read_atr, read_lip, read_points, read_worn
from fastfit_watch.mini.leather import draw_flat_bag, draw_shoe, draw_shoes, draw_worn_bag, flat_shoe_frames
from fastfit_watch.mini.people import draw_arm, draw_chest, draw_head, draw_legs
from fastfit_watch.mini.scene import Scene, cast_shadow, choose_scene, draw_scene, draw_shadow, lay_table
from fastfit_watch.mini.wardrobe import Bag, Bottom, Dress, Garment, Outfit, Shoe, Top, choose_garment

Size = tuple[int, int]

_WHOLE_SHARE, _DRESS_SHARE = 0.3, 0.25  # of drawn outfits: everything with separates, everything with a dress
_TALLEST = 1.07  # a person with the highest hair, in body units
_WHOLE = frozenset({Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG})
_WHOLE_DRESS = frozenset({Category.DRESS, Category.SHOE, Category.BAG})
_BARE_FOOTED: Outfit = {}


@dataclass(frozen=True)
class DrawnLook:
    """One look, exactly as drawn; uint8, (H, W) = size.

    person, truth : (H, W, 3), the person in present clothes, and with the given garments; the same pixels elsewhere.
    garments : flat-lay pictures (h, w, 3) of the given garments.
    densepose, lip, atr : (H, W), labels of `person`.
    worn : (H, W), category label + 1 where a garment is seen in `truth`, else 0.
    keypoints : float32 (134, 2), (x, y) in pixels of `person`, -1 where missing. scores : float32 (134,), 0 or 1.
    """

    person: Bytes
    truth: Bytes
    garments: Mapping[Category, Bytes]
    densepose: Bytes
    lip: Bytes
    atr: Bytes
    worn: Bytes
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class _Sitting:
    """Who is drawn and where: `height` of the person, `x` and `ground` of the feet, in shares of the picture."""

    person: Person
    scene: Scene
    present: Outfit
    height: float
    x: float
    ground: float


def draw_look(
    seed: int,
    categories: Collection[Category] | None = None,
    size: Size = (256, 192),
    garment_size: Size = (256, 192),
    accessory_size: Size = (128, 96),
) -> DrawnLook:
    """Draw a look from its seed; without `categories` the outfit is drawn too.

    Raises
    ------
    ValueError : no category is given, or a dress together with `upper` or `lower`.
    """
    rng = np.random.default_rng(seed)
    sitting_seed, outfit_seed, garment_seed = (int(each) for each in rng.integers(2**62, size=3))
    chosen = _choose_categories(np.random.default_rng(outfit_seed)) if categories is None else frozenset(categories)
    conflict = outfit_conflict(chosen) if chosen else "A look needs at least one garment."
    if conflict:
        raise ValueError(conflict)
    separates = bool(chosen & {Category.UPPER, Category.LOWER}) and not chosen >= {Category.UPPER, Category.LOWER}
    sitting = _choose_sitting(np.random.default_rng(sitting_seed), separates)
    given = {
        category: choose_garment(np.random.default_rng([garment_seed, category.label]), category)
        for category in Category
        if category in chosen
    }
    canvas = _draw_dressed(sitting, size, (sitting.present, _change(sitting.present, given)))
    person, truth = _round(canvas.pixels)
    flat = {
        category: _draw_flat(garment, accessory_size if category.is_accessory else garment_size)
        for category, garment in given.items()
    }
    keypoints, scores = read_points(canvas, sitting.person.figure)
    return DrawnLook(
        person,
        truth,
        flat,
        mark_body(canvas, sitting.person.figure),
        read_lip(canvas.beneath[0]),
        read_atr(canvas.surface[0]),
        read_worn(canvas.surface[1]),
        keypoints,
        scores,
    )


def draw_person(seed: int, size: Size = (1024, 768)) -> Bytes:
    """Draw one dressed person, uint8 (H, W, 3), as an upload would show them."""
    sitting = _choose_sitting(np.random.default_rng(seed), separates=False)
    return _round(_draw_dressed(sitting, size, (sitting.present,)).pixels[0])


def draw_garment(seed: int, category: Category, size: Size) -> Bytes:
    """Draw one garment lying flat, uint8 (h, w, 3)."""
    return _draw_flat(choose_garment(np.random.default_rng([seed, category.label]), category), size)


def _choose_categories(rng: np.random.Generator) -> frozenset[Category]:
    chance = rng.random()
    if chance < _WHOLE_SHARE:
        return _WHOLE
    if chance < _WHOLE_SHARE + _DRESS_SHARE:
        return _WHOLE_DRESS
    rest = [subset for subset in _outfits() if subset not in (_WHOLE, _WHOLE_DRESS)]
    return rest[int(rng.integers(len(rest)))]


def _outfits() -> list[frozenset[Category]]:
    """Every valid, non-empty set of categories."""
    subsets = (frozenset(each for each in Category if code >> each.label & 1) for code in range(1, 2 ** len(Category)))
    return [subset for subset in subsets if outfit_conflict(subset) is None]


def _choose_sitting(rng: np.random.Generator, separates: bool) -> _Sitting:
    person_rng, scene_rng, clothes_rng, place_rng = rng.spawn(4)
    person = choose_person(person_rng)
    dressed = clothes_rng.random() < (0.5 if person.feminine else 0.12)
    bagged = clothes_rng.random() < 0.4
    slots = [Category.DRESS] if dressed and not separates else [Category.UPPER, Category.LOWER]
    slots += [Category.SHOE, *([Category.BAG] if bagged else [])]
    wardrobe = dict(zip(Category, clothes_rng.spawn(len(Category)), strict=True))
    height = float(place_rng.uniform(0.78, 0.89))
    ground = float(place_rng.uniform(height * _TALLEST + 0.012, 0.98))
    return _Sitting(
        person,
        choose_scene(scene_rng),
        {slot: choose_garment(wardrobe[slot], slot) for slot in slots},
        height,
        float(place_rng.uniform(-0.02, 0.02)),
        ground,
    )


def _change(present: Outfit, given: Outfit) -> Outfit:
    """The present clothes with the given ones in their place."""
    dropped = set(given)
    if Category.DRESS in given:
        dropped |= {Category.UPPER, Category.LOWER}
    if {Category.UPPER, Category.LOWER} & set(given):
        dropped.add(Category.DRESS)
    return {slot: garment for slot, garment in present.items() if slot not in dropped} | dict(given)


def _draw_dressed(sitting: _Sitting, size: Size, outfits: Sequence[Outfit]) -> Canvas:
    """Paint the person from the back to the front, once for each outfit."""
    person, figure = sitting.person, sitting.person.figure
    height, width = size
    scale = sitting.height * height
    backdrop = np.repeat(draw_scene(sitting.scene, size), len(outfits), axis=0)
    canvas = Canvas(backdrop, scale, (width / 2 + sitting.x * height, sitting.ground * height - scale))
    dressed = [(canvas.sheet(index), outfit) for index, outfit in enumerate(outfits)]
    draw_shadow(canvas, figure, sitting.scene)
    draw_hair_behind(canvas, person)
    draw_legs(canvas, person)
    draw_chest(canvas, person)
    for sheet, outfit in dressed:
        for category in (Category.SHOE, Category.LOWER, Category.UPPER, Category.DRESS):
            if category in outfit:
                _put_on(sheet, figure, outfit[category])
    for side in (RIGHT, LEFT):
        draw_arm(canvas, person, side)
        for sheet, outfit in dressed:
            _put_on_sleeve(sheet, figure, outfit.get(Category.DRESS) or outfit[Category.UPPER], side)
            # The strap lies over the right shoulder; the left hand lies before the bag.
            if side == RIGHT and Category.BAG in outfit:
                _put_on(sheet, figure, outfit[Category.BAG])
    draw_head(canvas, person)
    draw_hair_before(canvas, person)
    return canvas


def _put_on(canvas: Canvas, figure: Figure, garment: Garment) -> None:
    match garment:
        case Top():
            draw_top(canvas, figure, garment)
        case Bottom():
            draw_bottom(canvas, figure, garment)
        case Dress():
            draw_dress(canvas, figure, garment)
        case Shoe():
            draw_shoes(canvas, figure, garment)
        case Bag():
            draw_worn_bag(canvas, figure, garment)


def _put_on_sleeve(canvas: Canvas, figure: Figure, garment: Garment, side: int) -> None:
    if isinstance(garment, Top | Dress):
        draw_sleeve(canvas, figure, garment, side, Surface.DRESS if isinstance(garment, Dress) else Surface.UPPER)


def _draw_flat(garment: Garment, size: Size) -> Bytes:
    """A garment on a table, as large as the picture allows."""
    height, width = size
    figure = lay_flat()
    span, middle = _FRAMING[type(garment)]
    scale = min(height / span[0], width / span[1])
    canvas = Canvas(lay_table(size), scale, (width / 2, height / 2 - middle * scale))
    match garment:
        case Shoe():
            for frame in flat_shoe_frames():
                draw_shoe(canvas, frame, garment, Surface.LEFT_SHOE, empty=True)
        case Bag():
            draw_flat_bag(canvas, garment)
        case _:
            _put_on(canvas, figure, garment)
            for side in (RIGHT, LEFT):
                _put_on_sleeve(canvas, figure, garment, side)
    cast_shadow(canvas, (height // 90, height // 160), height / 90)
    return _round(canvas.pixels[0])


# Height and width that a flat-lay picture shows, and y of its middle, in body units.
_FRAMING: dict[type[Garment], tuple[tuple[float, float], float]] = {
    Top: ((0.6, 0.53), 0.325),
    Bottom: ((0.72, 0.36), 0.672),
    Dress: ((0.84, 0.53), 0.52),
    Shoe: ((0.19, 0.1425), 0.008),
    Bag: ((0.235, 0.17), 0.0),
}


def _round(pixels: Floats) -> Bytes:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
