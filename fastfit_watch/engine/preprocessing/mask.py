"""Which pixels are repainted: label maps become a cloth-agnostic mask, uint8 (H, W), 255 where the model may paint.

`full_mask` and `part_mask` reproduce the published masks bit for bit (FastFit inference specification, sections 4.3
and 4.4). `worn_mask` is our own: only the regions of the given slots. H and W must be multiples of 4.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.domain.look import Category, MaskMode
from fastfit_watch.engine.parsers.parsing import Parsing
from fastfit_watch.engine.preprocessing.accessories import bag_region, shoe_region
from fastfit_watch.engine.preprocessing.labels import (
    Labels,
    Region,
    select_atr,
    select_clothes,
    select_lip,
    select_parts,
)
from fastfit_watch.engine.preprocessing.regions import coarsen, dilate, fill_hulls, keep_largest, smooth

Mask = NDArray[np.uint8]

_SHOES = frozenset({"left-shoe", "right-shoe"})
_OUTFIT = _SHOES | {"upper-clothes", "dress", "pants", "skirt", "coat", "jumpsuits", "bag", "socks", "belt"}
_OUTFIT_BODY = frozenset({"torso", "thighs", "legs", "big-arms", "forearms"})
_ARMS = frozenset({"left-arm", "right-arm"})
_LEGS = frozenset({"left-leg", "right-leg"})
_ACCESSORIES = frozenset({"hat", "glove", "sunglasses", "scarf", "bag", "socks"})


class Uniform(Protocol):
    """A source of random numbers: `numpy.random.Generator` or `numpy.random.RandomState`."""

    def uniform(self, low: float, high: float) -> float:
        """Draw one number from [low, high)."""
        ...


class Part(StrEnum):
    """One garment region of `part_mask`."""

    UPPER = "upper"
    LOWER = "lower"
    OVERALL = "overall"
    INNER = "inner"
    OUTER = "outer"


@dataclass(frozen=True)
class _PartRule:
    """What one part leaves alone (label names) and which body parts it repaints."""

    kept_body: frozenset[str]
    kept_atr: frozenset[str]
    kept_lip: frozenset[str]
    repainted: frozenset[str]


def _rule(part: Part) -> _PartRule:
    """Return the row of the published table (FastFit inference specification, section 4.4)."""
    arms_and_torso = frozenset({"torso", "big-arms", "forearms"})
    bottoms = frozenset({"skirt", "pants"})
    match part:
        case Part.UPPER:
            return _PartRule(_LEGS, bottoms, bottoms, arms_and_torso)
        case Part.LOWER:
            tops = _SHOES | {"upper-clothes"}
            return _PartRule(_ARMS | {"face"}, tops, tops | {"coat"}, frozenset({"thighs", "legs"}))
        case Part.OVERALL:
            return _PartRule(frozenset(), _SHOES, _SHOES, _OUTFIT_BODY)
        case Part.INNER:
            around = bottoms | {"dress", "coat"}
            return _PartRule(_LEGS, around, around | {"jumpsuits"}, frozenset({"torso"}))
        case Part.OUTER:
            others = bottoms | {"dress"}
            return _PartRule(_LEGS, others, others | {"upper-clothes", "jumpsuits"}, arms_and_torso)


def full_mask(
    densepose: Labels,
    lip: Labels,
    atr: Labels,
    square: bool = False,
    horizon_expand: bool = False,
    rng: Uniform | None = None,
) -> Mask:
    """Mask of the whole outfit, the multi-reference model's own (FastFit inference specification, section 4.3).

    Parameters
    ----------
    densepose, lip, atr : uint8 (H, W), labels of one picture; H and W multiples of 4.
    square : fill the outfit's bounding box, the face spared.
    horizon_expand : widen that box by up to 20 % on each side, drawn from `rng`; without `square` nothing is drawn.

    Returns
    -------
    uint8 (H, W), 0 or 255.

    Raises
    ------
    EngineError : the maps differ in size, or a side is not a multiple of 4.
    ValueError : the box is to be widened, but `rng` is None.
    """
    size = _common_size(densepose, lip, atr)
    clothes = dilate(select_clothes(lip, atr, _OUTFIT), size)
    face = select_lip(lip, {"face"})
    body = _coarse_body(densepose, _OUTFIT_BODY)
    outfit = dilate((clothes | body) & ~face, size)
    outfit = smooth(fill_hulls(smooth(outfit, 100)), 25)
    if square:
        expansion = _draw_expansion(rng) if horizon_expand else (0.0, 0.0)
        outfit = _fill_box(outfit, face, expansion) & ~face
    return dilate(outfit, size, iterations=2) * np.uint8(255)


def part_mask(part: Part | str, densepose: Labels, lip: Labels, atr: Labels, square: bool = False) -> Mask:
    """Mask of one garment region, the single-reference model's own (FastFit inference specification, section 4.4).

    Parameters
    ----------
    part : upper, lower, overall, inner or outer.
    densepose, lip, atr : uint8 (H, W), labels of one picture; H and W multiples of 4.
    square : fill the region's bounding box, the face spared.

    Returns
    -------
    uint8 (H, W), 0 or 255.

    Raises
    ------
    EngineError : the maps differ in size, or a side is not a multiple of 4.
    ValueError : `part` is not one of the five.
    """
    rule = _rule(Part(part))
    size = _common_size(densepose, lip, atr)
    limbs = select_clothes(lip, atr, _ARMS | _LEGS)
    extremities = dilate(select_parts(densepose, {"hands", "feet"}), size) & limbs
    face = select_lip(lip, {"face"})
    kept = extremities | face | select_clothes(lip, atr, rule.kept_body | _ACCESSORIES | {"hair"})
    kept |= select_atr(atr, rule.kept_atr) | select_lip(lip, rule.kept_lip)
    background = select_lip(lip, {"background"}) & select_atr(atr, {"background"})

    region = (np.uint8(1) & ~kept & ~background) | _coarse_body(densepose, rule.repainted)
    region = keep_largest(smooth(region, 100))
    region = smooth(fill_hulls(region) & ~kept, 25)
    if square:
        region = _fill_box(region, kept & ~region, (0.0, 0.0)) & ~face
    return dilate(region, size, iterations=2) * np.uint8(255)


def worn_mask(categories: Collection[Category], parsing: Parsing) -> Mask:
    """Mask of the given slots only, so that a new shirt leaves the trousers alone.

    Garments take their part of `part_mask` (dress: "overall"); shoes and bags take `shoe_region` and `bag_region`.
    The face (LIP) and the hair (either map) are never in it.

    Parameters
    ----------
    categories : the slots that receive a garment.
    parsing : labels of the person; H and W multiples of 4.

    Returns
    -------
    uint8 (H, W), 0 or 255. All 0 where nothing of those slots is in the picture.

    Raises
    ------
    EngineError : the maps differ in size, or a side is not a multiple of 4.
    """
    size = _common_size(parsing.densepose, parsing.lip, parsing.atr)
    region = np.zeros(size, np.uint8)
    for category in categories:
        region |= _slot_region(category, parsing)
    head = select_lip(parsing.lip, {"face"}) | select_clothes(parsing.lip, parsing.atr, {"hair"})
    return (region & ~head) * np.uint8(255)


def agnostic_mask(parsing: Parsing, categories: Collection[Category], mode: MaskMode) -> Mask:
    """Mask of a look: the whole outfit (`full`) or the region of the given slots (`worn`), uint8 (H, W), 0 or 255.

    Raises
    ------
    EngineError : nothing to repaint was found, the maps differ in size, or a side is not a multiple of 4.
    """
    if mode is MaskMode.FULL:
        mask = full_mask(parsing.densepose, parsing.lip, parsing.atr)
    else:
        mask = worn_mask(categories, parsing)
    if not mask.any():
        slots = ", ".join(sorted(categories))
        raise EngineError(
            f"Nothing to repaint was found for {slots}: no person, or that part of the person is outside the picture.",
            hint="Use a picture that shows the whole person, upright and alone.",
        )
    return mask


def _slot_region(category: Category, parsing: Parsing) -> Region:
    labels = parsing.densepose, parsing.lip, parsing.atr
    match category:
        case Category.UPPER:
            return part_mask(Part.UPPER, *labels) & np.uint8(1)
        case Category.LOWER:
            return part_mask(Part.LOWER, *labels) & np.uint8(1)
        case Category.DRESS:
            return part_mask(Part.OVERALL, *labels) & np.uint8(1)
        case Category.SHOE:
            return shoe_region(*labels)
        case Category.BAG:
            return bag_region(parsing.densepose, parsing.atr)


def _coarse_body(densepose: Labels, parts: frozenset[str]) -> Region:
    """Body parts and both feet, coarsened."""
    return coarsen(select_parts(densepose, parts | {"feet"}), densepose.shape)


def _fill_box(region: Region, spared: Region, expansion: tuple[float, float]) -> Region:
    """Fill the bounding box of `region`, widened left and right by shares of its width, except where `spared`."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not rows.size:
        return region
    width = int(columns[-1] - columns[0]) + 1
    left, right = (int(share * width) for share in expansion)
    start = max(0, int(columns[0]) - left)
    # The published box keeps its full width when its left side is cut off by the picture.
    stop = min(region.shape[1], start + width + left + right)
    box = np.zeros_like(region)
    box[rows[0] : rows[-1] + 1, start:stop] = 1
    return dilate(box & ~spared, region.shape)


def _draw_expansion(rng: Uniform | None) -> tuple[float, float]:
    if rng is None:
        raise ValueError("horizon_expand draws two random numbers: pass rng.")
    return rng.uniform(0, 0.2), rng.uniform(0, 0.2)


def _common_size(densepose: Labels, lip: Labels, atr: Labels) -> tuple[int, int]:
    """Return (height, width) of three equal maps with sides that are multiples of 4."""
    height, width = densepose.shape
    if lip.shape != (height, width) or atr.shape != (height, width):
        raise EngineError(
            f"The label maps differ in size: DensePose {densepose.shape}, LIP {lip.shape}, ATR {atr.shape}.",
            hint="All three must come from the same picture.",
        )
    if height % 4 or width % 4:
        raise EngineError(
            f"A mask cannot be made at height {height}, width {width}: both must be multiples of 4.",
            hint="Crop or resize the picture before it is parsed.",
        )
    return height, width
