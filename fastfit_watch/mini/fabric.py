"""Cloth: colours and patterns, laid out in the garment's own coordinates so that they look alike worn and lying flat.

Patterns are coarse on purpose: at 256x192 a period is ten pixels or more, so that a factor-8 autoencoder keeps it.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fastfit_watch.mini.canvas import Colour, Floats, limit

CREAM: Colour = (252, 243, 224)
INK: Colour = (44, 46, 58)

PALETTE: tuple[Colour, ...] = (
    (226, 108, 92),
    (201, 86, 66),
    (178, 44, 56),
    (126, 34, 52),
    (238, 150, 96),
    (236, 184, 78),
    (206, 150, 48),
    (244, 214, 122),
    (126, 134, 66),
    (150, 176, 128),
    (62, 106, 78),
    (34, 74, 66),
    (108, 178, 160),
    (48, 134, 138),
    (126, 186, 216),
    (70, 130, 190),
    (50, 84, 146),
    (36, 48, 92),
    (90, 116, 150),
    (112, 98, 176),
    (168, 148, 208),
    (108, 56, 112),
    (214, 132, 168),
    (240, 176, 180),
    (206, 70, 122),
    (134, 88, 60),
    (190, 144, 98),
    (84, 62, 56),
    (74, 76, 84),
    (40, 40, 46),
    (146, 140, 136),
    CREAM,
)
DENIMS: tuple[Colour, ...] = ((92, 124, 168), (62, 88, 130), (44, 58, 92), (132, 162, 196))
LEATHERS: tuple[Colour, ...] = (
    (148, 92, 56),
    (104, 62, 44),
    (190, 138, 86),
    (48, 42, 44),
    (132, 44, 50),
    (218, 186, 140),
    (54, 74, 104),
    (76, 100, 78),
)


class Pattern(StrEnum):
    """How two colours share a cloth."""

    PLAIN = "plain"
    HOOPS = "hoops"  # stripes across the body
    PINSTRIPES = "pinstripes"  # stripes along the body
    CHECKS = "checks"
    DOTS = "dots"
    DIAMONDS = "diamonds"
    FLOWERS = "flowers"
    BAND = "band"  # one broad stripe across the chest
    BADGE = "badge"  # one large motif on the chest


class Motif(StrEnum):
    """What a badge shows."""

    STAR = "star"
    HEART = "heart"
    DISC = "disc"


_REPEATING = (
    Pattern.HOOPS,
    Pattern.PINSTRIPES,
    Pattern.CHECKS,
    Pattern.DOTS,
    Pattern.DIAMONDS,
    Pattern.FLOWERS,
)


@dataclass(frozen=True)
class Fabric:
    """One cloth. `period` is the pattern's repeat in body units; `motif` matters to a badge only."""

    pattern: Pattern
    ground: Colour
    figure: Colour
    period: float = 0.066
    motif: Motif = Motif.STAR

    def colour(self, u: Floats, v: Floats, scale: float) -> Floats | Colour:
        """Colour of every point of the garment: (3,), or (h, w, 3) for a pattern. `scale` is pixels a unit."""
        if self.pattern is Pattern.PLAIN:
            return self.ground
        share = self._share(u, v, scale)[..., None]
        ground = np.asarray(self.ground, np.float32)
        return ground + share * (np.asarray(self.figure, np.float32) - ground)

    def _share(self, u: Floats, v: Floats, scale: float) -> Floats:
        """Share of the figure's colour, 0..1, with edges one pixel soft."""
        p = self.period
        match self.pattern:
            case Pattern.HOOPS:
                return _soft(p * 0.24 - _from_line(v, p), scale)
            case Pattern.PINSTRIPES:
                return _soft(p * 0.22 - _from_line(u, p), scale)
            case Pattern.CHECKS:
                return (_soft(p * 0.25 - _from_line(v, p), scale) + _soft(p * 0.25 - _from_line(u, p), scale)) * 0.5
            case Pattern.DOTS:
                a, b = _lattice(u, v, p)
                return _soft(p * 0.29 - np.sqrt(a * a + b * b), scale)
            case Pattern.DIAMONDS:
                a, b = _lattice(u, v, p)
                return _soft((p * 0.4 - np.abs(a) * 1.25 - np.abs(b)) * 0.62, scale)
            case Pattern.FLOWERS:
                a, b = _lattice(u, v, p * 1.15)
                petals = 0.74 + 0.26 * np.cos(5 * np.arctan2(a, -b))
                return _soft(p * 0.4 * petals - np.sqrt(a * a + b * b), scale)
            case Pattern.BAND:
                return _soft(0.034 - np.abs(v - 0.135), scale)
            case _:
                return _soft(_motif_depth(self.motif, u, v - np.float32(0.142), 0.054), scale)


def choose_colour(rng: np.random.Generator) -> Colour:
    """A clothing colour: mostly near a chosen palette, sometimes anywhere."""
    if rng.random() < 0.3:
        lightness, saturation = rng.uniform(0.2, 0.78), rng.uniform(0.12, 0.72)
        red, green, blue = (255 * part for part in colorsys.hls_to_rgb(float(rng.random()), lightness, saturation))
        return red, green, blue
    base = PALETTE[int(rng.integers(len(PALETTE)))]
    red, green, blue = (float(np.clip(channel + rng.normal(0, 9), 18, 252)) for channel in base)
    return red, green, blue


def choose_contrast(rng: np.random.Generator, ground: Colour) -> Colour:
    """A colour that stands out against `ground`."""
    dark = luminance(ground) < 120
    if rng.random() < 0.45:
        return CREAM if dark else INK
    for _ in range(12):
        colour = choose_colour(rng)
        if abs(luminance(colour) - luminance(ground)) > 62:
            return colour
    return CREAM if dark else INK


def choose_fabric(rng: np.random.Generator, plain: float, badges: bool) -> Fabric:
    """A cloth: plain with probability `plain`; `badges` allows what belongs on a chest."""
    ground = choose_colour(rng)
    figure = choose_contrast(rng, ground)
    motif = tuple(Motif)[int(rng.integers(len(Motif)))]
    chance = rng.random()
    kinds = _REPEATING + ((Pattern.BAND, Pattern.BADGE, Pattern.BADGE) if badges else ())
    pattern = kinds[int(rng.integers(len(kinds)))]
    period = float(rng.uniform(0.062, 0.08))
    return Fabric(Pattern.PLAIN if chance < plain else pattern, ground, figure, period, motif)


def luminance(colour: Colour) -> float:
    """Brightness of a colour, 0..255 (ITU-R BT.601 weights)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def darker(colour: Colour, share: float) -> Colour:
    """The colour with `share` of its light taken away; below 0 it is mixed towards white."""
    if share >= 0:
        return colour[0] * (1 - 0.9 * share), colour[1] * (1 - share), colour[2] * (1 - 0.86 * share)
    red, green, blue = (channel - (255 - channel) * share for channel in colour)
    return red, green, blue


def _soft(depth: Floats, scale: float) -> Floats:
    return limit(depth * scale + 0.5)


def _from_line(at: Floats, period: float) -> Floats:
    """Distance to the nearest of the lines at whole multiples of `period`."""
    turns = at * (1 / period)
    return np.asarray(np.abs(turns - np.rint(turns)) * period)


def _lattice(u: Floats, v: Floats, period: float) -> tuple[Floats, Floats]:
    """Offsets from the nearest point of a grid whose odd rows are shifted by half a period."""
    row_height = period * 0.8
    row = np.rint(v * (1 / row_height))
    shifted = u * (1 / period) + 0.5 * (row - 2 * np.floor(row / 2))
    return (shifted - np.rint(shifted)) * period, v - row * row_height


def _motif_depth(motif: Motif, u: Floats, v: Floats, radius: float) -> Floats:
    """Distance inside a motif's edge, roughly; negative outside."""
    distance = np.sqrt(u * u + v * v)
    match motif:
        case Motif.DISC:
            return radius * 0.86 - distance
        case Motif.STAR:
            sector = 2 * np.pi / 5
            angle = np.arctan2(u, -v)
            angle = np.abs(angle - np.rint(angle * (1 / sector)) * sector)
            # Half a spike is a straight edge from its tip to the notch beside it.
            tip, notch = np.array([radius, 0.0]), 0.46 * radius * np.array([np.cos(sector / 2), np.sin(sector / 2)])
            edge = (notch - tip) / np.hypot(*(notch - tip))
            x, y = distance * np.cos(angle), distance * np.sin(angle)
            return (y * np.float32(edge[0]) - (x - np.float32(radius)) * np.float32(edge[1])) * -1.0
        case _:
            # A square on its tip, and a disc on each of its upper edges.
            a, b = np.abs(u) * (1 / radius), 0.1 - v * (1 / radius)
            lobe = 0.53 - np.sqrt((a - 0.375) ** 2 + (b - 0.375) ** 2)
            square = (0.75 - np.maximum(np.abs(a + b), np.abs(a - b))) * np.float32(0.707)
            return np.maximum(lobe, square) * radius
