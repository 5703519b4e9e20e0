"""Fabrics: what colour a garment has at each point of its own coordinates. Lengths are in person heights."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # RGB, 0..255
Array = NDArray[Any]

KINDS = ("plain", "stripes", "bars", "checks", "dots", "hearts", "diamonds", "zigzag", "blocks")
_WEIGHTS = (0.33, 0.11, 0.11, 0.11, 0.11, 0.06, 0.07, 0.05, 0.05)


@dataclass(frozen=True)
class Fabric:
    """A pattern of two colours; `period` is its repeat in person heights."""

    kind: str
    base: Colour
    accent: Colour
    period: float


def draw_colour(rng: np.random.Generator) -> Colour:
    """A garment colour: hues spread evenly, from soft to strong, with blacks, whites and greys among them."""
    if rng.random() < 0.2:
        grey = float(rng.choice([38, 62, 120, 176, 226, 244]))
        return grey + rng.uniform(-4, 6), grey, grey + rng.uniform(-4, 8)
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.35, 0.85), rng.uniform(0.45, 0.96))
    return red * 255, green * 255, blue * 255


def draw_fabric(rng: np.random.Generator, plain: bool = False) -> Fabric:
    """A random fabric; its two colours differ clearly in lightness."""
    kind = "plain" if plain else str(rng.choice(KINDS, p=_WEIGHTS))
    base, accent = draw_colour(rng), draw_colour(rng)
    while abs(_luma(base) - _luma(accent)) < 60:
        accent = draw_colour(rng)
    return Fabric(kind, base, accent, float(rng.uniform(0.055, 0.085)))


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (< 1) or lighter (> 1) tone."""
    red, green, blue = (min(255.0, part * factor) for part in colour)
    return red, green, blue


def weave(fabric: Fabric, u: Array, v: Array) -> Array:
    """Colours at garment coordinates: u across, v along, in person heights. Returns float32 (..., 3), 0..255."""
    accent = _accent(fabric, u, v)[..., None]
    base, other = np.asarray(fabric.base, np.float32), np.asarray(fabric.accent, np.float32)
    return np.asarray(base * (1 - accent) + other * accent)


def _accent(fabric: Fabric, u: Array, v: Array) -> Array:
    """Share of the accent colour, 0..1, with edges about a hundredth of a person height soft."""
    a, b = _wrap(u / fabric.period), _wrap(v / fabric.period)
    match fabric.kind:
        case "stripes":
            return _soft(np.abs(a) - 0.25)
        case "bars":
            return _soft(np.abs(b) - 0.25)
        case "checks":
            across, down = _soft(np.abs(a) - 0.22), _soft(np.abs(b) - 0.22)
            return 0.5 * (across + down)
        case "dots":
            return _soft(np.hypot(a, b) - 0.30)
        case "diamonds":
            return _soft(np.abs(a) + np.abs(b) - 0.36)
        case "zigzag":
            return _soft(np.abs(_wrap(v / fabric.period + np.abs(a))) - 0.25)
        case "blocks":  # two wide bands of cloth, repeated
            return _soft(np.abs(_wrap(v / (5 * fabric.period) + 0.3)) - 0.25)
        case "hearts":
            x, y = a * 3.1, -b * 3.1 + 0.25
            return _soft(((x * x + y * y - 0.8) ** 3 - x * x * y**3) * 0.5)
        case _:
            return np.zeros_like(a)


def _wrap(position: Array) -> Array:
    return (position - np.floor(position) - 0.5).astype(np.float32)


def _soft(signed: Array) -> Array:
    """1 inside (negative), 0 outside, with a soft step between."""
    return np.clip(0.5 - signed / 0.08, 0, 1).astype(np.float32)


def _luma(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
