"""What hangs in the wardrobe: garments as values, drawn from a seed. Lengths in body units (see canvas)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fastfit_watch.look import Category
from fastfit_watch.mini.canvas import Colour
from fastfit_watch.mini.fabric import (
    CREAM,
    DENIMS,
    INK,
    LEATHERS,
    Fabric,
    Pattern,
    choose_colour,
    choose_contrast,
    choose_fabric,
    darker,
)


class Neckline(StrEnum):
    """How the neck is left open."""

    CREW = "crew"
    VEE = "vee"
    SCOOP = "scoop"
    COLLAR = "collar"
    HOOD = "hood"
    ROLL = "roll"


@dataclass(frozen=True)
class Top:
    """A garment for the upper body. `sleeve`: share of the arm covered, 0 for none."""

    fabric: Fabric
    trim: Colour
    neckline: Neckline
    sleeve: float
    ease: float
    buttons: bool = False
    ribbed: bool = False
    pocket: bool = False


@dataclass(frozen=True)
class Bottom:
    """Trousers, shorts or a skirt. `hem` is y of the hem; `flare` widens it."""

    fabric: Fabric
    skirt: bool
    hem: float
    flare: float
    pleats: int = 0
    turnup: bool = False
    stitched: bool = False


@dataclass(frozen=True)
class Dress:
    """A dress: a fitted top and a skirt of one cloth. `belt` is its colour, None for none."""

    fabric: Fabric
    trim: Colour
    neckline: Neckline
    sleeve: float
    hem: float
    flare: float
    pleats: int
    belt: Colour | None


class ShoeCut(StrEnum):
    """Kinds of shoes."""

    SNEAKER = "sneaker"
    BOOT = "boot"
    PUMP = "pump"


@dataclass(frozen=True)
class Shoe:
    """A pair of shoes."""

    cut: ShoeCut
    upper: Colour
    accent: Colour
    sole: Colour


class BagCut(StrEnum):
    """Kinds of cross-body bags."""

    SATCHEL = "satchel"
    SADDLE = "saddle"
    BUCKET = "bucket"


@dataclass(frozen=True)
class Bag:
    """A cross-body bag."""

    cut: BagCut
    leather: Colour
    accent: Colour
    metal: Colour


Garment = Top | Bottom | Dress | Shoe | Bag
Outfit = Mapping[Category, Garment]


def choose_garment(rng: np.random.Generator, category: Category) -> Garment:
    """Draw a garment of one category."""
    match category:
        case Category.UPPER:
            return _choose_top(rng)
        case Category.LOWER:
            return _choose_bottom(rng)
        case Category.DRESS:
            return _choose_dress(rng)
        case Category.SHOE:
            return _choose_shoe(rng)
        case Category.BAG:
            return _choose_bag(rng)


def _choose_top(rng: np.random.Generator) -> Top:
    kind = ("tee", "longsleeve", "tank", "shirt", "hoodie", "sweater")[
        int(rng.choice(6, p=[0.26, 0.14, 0.14, 0.2, 0.12, 0.14]))
    ]
    fabric = choose_fabric(rng, 0.38, kind in ("tee", "longsleeve", "hoodie", "sweater", "tank"))
    if kind == "shirt" and fabric.pattern in (Pattern.BAND, Pattern.BADGE):
        fabric = Fabric(Pattern.PLAIN, fabric.ground, fabric.figure)
    contrast = fabric.figure if rng.random() < 0.35 else darker(fabric.ground, 0.14)
    match kind:
        case "tee":
            neck = Neckline.VEE if rng.random() < 0.3 else Neckline.CREW
            return Top(fabric, contrast, neck, float(rng.uniform(0.3, 0.44)), 0.008)
        case "longsleeve":
            neck = (Neckline.CREW, Neckline.SCOOP, Neckline.ROLL)[int(rng.integers(3))]
            return Top(fabric, contrast, neck, 1.0, 0.005)
        case "tank":
            return Top(fabric, contrast, Neckline.SCOOP, 0.0, 0.005)
        case "shirt":
            sleeve = 1.0 if rng.random() < 0.65 else 0.4
            return Top(fabric, contrast, Neckline.COLLAR, sleeve, 0.009, buttons=True, pocket=bool(rng.random() < 0.5))
        case "hoodie":
            return Top(fabric, contrast, Neckline.HOOD, 1.0, 0.012, ribbed=True, pocket=True)
        case _:
            neck = (Neckline.CREW, Neckline.VEE, Neckline.ROLL)[int(rng.integers(3))]
            return Top(fabric, contrast, neck, 1.0, 0.011, ribbed=True)


def _choose_bottom(rng: np.random.Generator) -> Bottom:
    kind = int(rng.choice(4, p=[0.26, 0.24, 0.2, 0.3]))
    fabric = choose_fabric(rng, 0.58, badges=False)
    if kind == 0:
        denim = DENIMS[int(rng.integers(len(DENIMS)))]
        fabric = Fabric(Pattern.PLAIN, denim, CREAM)
        return Bottom(
            fabric, False, 0.918, float(rng.uniform(-0.006, 0.012)), 0, bool(rng.random() < 0.4), stitched=True
        )
    if kind == 1:
        return Bottom(fabric, False, float(rng.choice([0.918, 0.88])), float(rng.uniform(-0.004, 0.018)))
    if kind == 2:
        return Bottom(
            fabric, False, float(rng.uniform(0.62, 0.69)), float(rng.uniform(0.004, 0.014)), 0, bool(rng.random() < 0.4)
        )
    pleats = int(rng.choice([0, 0, 7]))
    return Bottom(fabric, True, float(rng.choice([0.655, 0.73, 0.82])), float(rng.uniform(0.0, 0.03)), pleats)


def _choose_dress(rng: np.random.Generator) -> Dress:
    fabric = choose_fabric(rng, 0.36, badges=False)
    necks = (Neckline.CREW, Neckline.VEE, Neckline.SCOOP, Neckline.COLLAR)
    sleeve = (0.0, 0.34, 1.0)[int(rng.choice(3, p=[0.4, 0.35, 0.25]))]
    accent = choose_contrast(rng, fabric.ground) if fabric.pattern is Pattern.PLAIN else fabric.figure
    return Dress(
        fabric,
        accent if rng.random() < 0.4 else darker(fabric.ground, 0.14),
        necks[int(rng.choice(4, p=[0.3, 0.28, 0.27, 0.15]))],
        sleeve,
        float(rng.choice([0.7, 0.76, 0.88])) + float(rng.uniform(-0.012, 0.012)),
        float(rng.uniform(0.0, 0.045)),
        int(rng.choice([0, 7, 9])),
        accent if rng.random() < 0.45 else None,
    )


def _choose_shoe(rng: np.random.Generator) -> Shoe:
    cut = tuple(ShoeCut)[int(rng.choice(3, p=[0.42, 0.3, 0.28]))]
    if cut is ShoeCut.SNEAKER:
        upper = choose_colour(rng)
        return Shoe(cut, upper, choose_contrast(rng, upper), CREAM if rng.random() < 0.75 else INK)
    upper = LEATHERS[int(rng.integers(len(LEATHERS)))] if rng.random() < 0.5 else choose_colour(rng)
    return Shoe(cut, upper, darker(upper, 0.3), darker(upper, 0.5) if cut is ShoeCut.BOOT else darker(upper, 0.35))


def _choose_bag(rng: np.random.Generator) -> Bag:
    leather = LEATHERS[int(rng.integers(len(LEATHERS)))] if rng.random() < 0.4 else choose_colour(rng)
    metal = ((222, 184, 96), (196, 200, 206))[int(rng.integers(2))]
    accent = darker(leather, 0.22) if rng.random() < 0.6 else choose_contrast(rng, leather)
    return Bag(tuple(BagCut)[int(rng.integers(3))], leather, accent, metal)
