"""Where figures are painted: soft-edged pieces measured along bones, their colours and the label of every pixel.

Lengths are in body units: 1 is the height of a person. x grows to the right and y down, x = 0 on the person's middle.
A piece is measured in its own coordinates: v runs along its bones, u across them, to the left of the direction of v
as seen on the picture, so that a fabric's pattern follows the limb that wears it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]
Point = tuple[float, float]
Colour = tuple[float, float, float]

SHADOW = np.array([0.86, 1.0, 0.84], np.float32)  # how much of each channel a shadow takes: shadows lean to violet
_ENTRIES = 256  # steps of a profile
_SUBPIXEL_BITS = 4
_FINER = 4
_CURVE_STEPS = 6  # points of a smooth outline for each given point
_T = np.linspace(0, 1, _CURVE_STEPS, endpoint=False)[:, None]
# Weights of four neighbouring points at every step of a Catmull-Rom segment, (steps, 4).
_BLEND = np.hstack([-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2]) / 2


@dataclass(frozen=True, eq=False)
class Profile:
    """Half width of a piece along its bones, from v = start to v = stop, in constant steps.

    widths : float32 (steps,). slant : float32 (steps,), what turns a distance across the bone into the distance to
    the edge: it overstates the one to a slanted edge.
    """

    start: float
    stop: float
    widths: Floats
    slant: Floats
    widest: float

    def index(self, v: Floats) -> NDArray[np.int32]:
        """Entry of every v, those outside the ends included."""
        scaled = (v - self.start) * ((_ENTRIES - 1) / (self.stop - self.start))
        return np.asarray(np.minimum(np.maximum(scaled, 0), _ENTRIES - 1).astype(np.int32))

    def at(self, v: float) -> float:
        """Half width at one v."""
        return float(self.widths[self.index(np.array([v], np.float32))[0]])


@lru_cache(maxsize=512)
def profile(*knots: Point) -> Profile:
    """A smooth profile through (v, half width) knots. Few differ from one figure to the next, so they are kept."""
    v, width = np.array(knots, np.float64).T
    steps = np.linspace(v[0], v[-1], _ENTRIES)
    values = _interpolate(v, width, steps)
    slope = np.zeros(_ENTRIES)
    slope[1:] = np.diff(values) * ((_ENTRIES - 1) / (v[-1] - v[0]))
    slope[0] = slope[1]
    slant = (1 / np.sqrt(1 + slope * slope)).astype(np.float32)
    return Profile(float(v[0]), float(v[-1]), values.astype(np.float32), slant, float(values.max()))


@dataclass(frozen=True)
class Piece:
    """One piece on its rectangle of the canvas, all float32 (h, w).

    u, v : body units, across and along the bones. side : u as a share of the half width, -1..1 inside.
    depth : body units inside the edge; negative outside.
    """

    rows: slice
    columns: slice
    u: Floats
    v: Floats
    side: Floats
    depth: Floats

    def cut(self, depth: Floats) -> Piece:
        """Return what also lies inside another edge."""
        return replace(self, depth=np.minimum(self.depth, depth))


class Canvas:
    """Sheets of float pixels and, for every pixel, the surface seen there and the surface beneath a bag.

    What is painted lands on every sheet alike. A person in two outfits takes two sheets: what the outfits share is
    measured once and painted on both, the rest on one `sheet` at a time.
    """

    def __init__(self, pixels: Floats, scale: float, origin: Point, labels: Bytes | None = None) -> None:
        """Paint on `pixels`, float32 (n, h, w, 3), 0..255: `scale` pixels a unit, (0, 0) at pixel `origin` (x, y)."""
        self.pixels = pixels
        self.scale = scale
        self.origin = origin
        self._labels = np.zeros((2, *pixels.shape[:3]), np.uint8) if labels is None else labels

    @property
    def surface(self) -> Bytes:
        """What is seen at every pixel, uint8 (n, h, w)."""
        return np.asarray(self._labels[0])

    @property
    def beneath(self) -> Bytes:
        """What is seen there without bags, uint8 (n, h, w)."""
        return np.asarray(self._labels[1])

    def sheet(self, index: int) -> Canvas:
        """One sheet as a canvas; painting on it paints on this one."""
        only = slice(index, index + 1)
        return Canvas(self.pixels[only], self.scale, self.origin, self._labels[:, only])

    def tube(
        self,
        bones: Sequence[Point],
        shape: Profile,
        other: Profile | None = None,
        *,
        round_start: bool = False,
        round_stop: bool = False,
    ) -> Piece:
        """Measure a piece along `bones`; `other` is the half width where u is positive, if it differs.

        The first and the last bone go on as far as the profile reaches. Ends are cut straight or round.
        """
        reach = max(shape.widest, other.widest if other else 0.0)
        joints = np.array(bones, np.float64)
        along = np.diff(joints, axis=0)
        lengths = np.hypot(along[:, 0], along[:, 1])
        along /= lengths[:, None]
        total = float(lengths.sum())
        ends = [joints[0] + along[0] * shape.start, joints[-1] + along[-1] * (shape.stop - total)]
        inner = joints[1:-1] if len(joints) > 2 else joints[:0]
        rows, columns, x, y = self._grid(np.vstack([*ends, inner]), reach)
        u, v, excess = _measure(x, y, joints, along, lengths)
        raw = v
        if round_start or round_stop:
            low = shape.start if round_start else -np.inf
            high = shape.stop if round_stop else np.inf
            v = np.clip(raw, low, high)
            excess = excess + (raw - v)
        across = np.sqrt(u * u + excess * excess) if excess.any() else np.abs(u)
        entry = shape.index(v)
        width, slant = shape.widths[entry], shape.slant[entry]
        if other is not None:
            right = u > 0
            entry = other.index(v)
            width = np.where(right, other.widths[entry], width)
            slant = np.where(right, other.slant[entry], slant)
        depth = (width - across) * slant
        if not round_start:
            depth = np.minimum(depth, raw - shape.start)
        if not round_stop:
            depth = np.minimum(depth, shape.stop - raw)
        side = u / np.maximum(width, 1e-4)
        return Piece(rows, columns, u, raw, side, depth)

    def blob(self, frame: Frame, outline: Sequence[Point], *, smooth: bool = True) -> Piece:
        """Measure a piece inside an outline given in a frame's coordinates; u and v are the frame's."""
        shape = np.array(outline, np.float64)
        if smooth:
            shape = _smooth_outline(shape)
        points = frame.place_all(shape)
        rows, columns, x, y = self._grid(points, 0.0)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if height and width:
            # OpenCV's anti-aliased polygons come out two thirds of a pixel too wide; finer hard ones, averaged, do not.
            fine = np.zeros((height * _FINER, width * _FINER), np.uint8)
            pixels = (points * self.scale + self.origin - (columns.start, rows.start)) * _FINER - 0.5
            cv2.fillPoly(
                fine, [np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)], 255, cv2.LINE_8, _SUBPIXEL_BITS
            )
            inside = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
            core = cv2.blur(cv2.distanceTransform((inside > 127).astype(np.uint8), cv2.DIST_L2, 5), (3, 3))
        else:
            inside = np.zeros((height, width), np.uint8)
            core = np.zeros((height, width), np.float32)
        # At the edge the polygon's own coverage is exact; further in, the distance transform is.
        depth = np.where(core > 1.5, core - 0.5, inside.astype(np.float32) / 255 - 0.5) / np.float32(self.scale)
        u, v = frame.measure(x, y)
        half = max(float(np.abs(shape[:, 0] - shape[:, 0].mean()).max()), 1e-4)
        side = (u - float(shape[:, 0].mean())) / half
        return Piece(rows, columns, u, v, side, depth.astype(np.float32))

    def coverage(self, piece: Piece) -> Floats:
        """Share of every pixel that the piece covers, 0..1."""
        return limit(piece.depth * self.scale + 0.5)

    def paint(self, piece: Piece, colour: Floats | Colour, surface: int | None = None, opacity: float = 1.0) -> None:
        """Lay a colour, (3,) or (h, w, 3), over the canvas; None leaves the labels as they are."""
        alpha = self.coverage(piece)
        self._blend(piece.rows, piece.columns, alpha if opacity == 1 else alpha * np.float32(opacity), colour)
        if surface is not None:
            self.label(piece, alpha > 0.5, surface)

    def label(self, piece: Piece, where: NDArray[np.bool_], surface: int, *, over: bool = False) -> None:
        """Say what is seen there; `over` leaves the surface beneath as it was."""
        planes = self._labels[:1] if over else self._labels
        planes[:, :, piece.rows, piece.columns][:, :, where] = surface

    def glow(self, centre: Point, radii: Point, colour: Colour, opacity: float) -> None:
        """A soft ellipse without an edge: floor shadows, blush."""
        rows, columns, x, y = self._grid(np.array([centre]), max(radii))
        near = limit(1 - ((x - centre[0]) / radii[0]) ** 2 - ((y - centre[1]) / radii[1]) ** 2)
        self._blend(rows, columns, near * near * np.float32(opacity), colour)

    def dot(self, centre: Point, radius: float, colour: Colour) -> None:
        """A small disc without a label."""
        rows, columns, x, y = self._grid(np.array([centre]), radius)
        distance = np.sqrt((x - np.float32(centre[0])) ** 2 + (y - np.float32(centre[1])) ** 2)
        self._blend(rows, columns, limit((radius - distance) * self.scale + 0.5), colour)

    def stroke(
        self, points: Sequence[Point], width: float, colour: Colour, opacity: float = 1.0, over: int | None = None
    ) -> None:
        """A smooth thin line of round ends through points, `width` units thick.

        It changes no label, but for `over`: the surface then seen there, while the one beneath stays.
        """
        path = _smooth_path(np.array(points, np.float64))
        rows, columns, _, _ = self._grid(path, width)
        height, breadth = rows.stop - rows.start, columns.stop - columns.start
        if not (height and breadth):
            return
        ink = np.zeros((height, breadth), np.uint8)
        pixels = path * self.scale + self.origin - (columns.start + 0.5, rows.start + 0.5)
        fixed = np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        thick = width * self.scale
        cv2.polylines(ink, [fixed], False, 255, max(1, round(thick)), cv2.LINE_AA, _SUBPIXEL_BITS)
        self._blend(rows, columns, ink.astype(np.float32) * np.float32(opacity * min(1.0, thick) / 255), colour)
        if over is not None:
            self.surface[:, rows, columns][:, ink > 127] = over

    def _blend(self, rows: slice, columns: slice, alpha: Floats, colour: Floats | Colour) -> None:
        """Mix a colour, (3,) or (h, w, 3), into every sheet by `alpha` (h, w)."""
        region = self.pixels[:, rows, columns]
        change = np.asarray(colour, np.float32) - region
        change *= alpha[..., None]
        region += change

    def _grid(self, points: NDArray[np.float64], margin: float) -> tuple[slice, slice, Floats, Floats]:
        """Rectangle around points with a margin in units, and its pixel centres in units, (1, w) and (h, 1)."""
        height, width = self.pixels.shape[1:3]
        low = np.floor((points.min(axis=0) - margin) * self.scale + self.origin - 1).astype(int)
        high = np.ceil((points.max(axis=0) + margin) * self.scale + self.origin + 1).astype(int)
        left, top = (int(min(max(value, 0), limit)) for value, limit in zip(low, (width, height), strict=True))
        right, bottom = (int(min(max(value, 0), limit)) for value, limit in zip(high, (width, height), strict=True))
        x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - self.origin[0])) / np.float32(self.scale)
        y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - self.origin[1])) / np.float32(self.scale)
        return slice(top, bottom), slice(left, right), x[None, :], y[:, None]


@dataclass(frozen=True)
class Frame:
    """A place for outlines: (a, b) lies at origin + a * across + b * along."""

    origin: Point
    across: Point
    along: Point

    def place(self, a: float, b: float) -> Point:
        """Body units of one point."""
        (x, y), (ax, ay), (bx, by) = self.origin, self.across, self.along
        return x + a * ax + b * bx, y + a * ay + b * by

    def place_all(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Body units of (n, 2) points."""
        return np.asarray(np.asarray(self.origin) + points @ np.array([self.across, self.along]))

    def measure(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Frame coordinates of body units."""
        (ax, ay), (bx, by) = self.across, self.along
        area = ax * by - ay * bx
        dx, dy = x - np.float32(self.origin[0]), y - np.float32(self.origin[1])
        return dx * (by / area) - dy * (bx / area), dy * (ax / area) - dx * (ay / area)


def turned(origin: Point, angle: float, size: float = 1.0, *, mirrored: bool = False) -> Frame:
    """A frame turned clockwise by `angle` radians, `size` times as large, mirrored left to right if asked."""
    cos, sin = float(np.cos(angle)) * size, float(np.sin(angle)) * size
    sign = -1.0 if mirrored else 1.0
    return Frame(origin, (sign * cos, sign * sin), (-sin, cos))


def limit(values: Floats) -> Floats:
    """Values held between 0 and 1; several times faster than `np.clip` on small pieces."""
    return np.asarray(np.minimum(np.maximum(values, 0), 1))


def shade(colour: Floats | Colour, darkness: Floats) -> Floats:
    """Darken a colour, (3,) or (h, w, 3), by `darkness` (h, w): 0 leaves it, 1 takes all light, below 0 lightens."""
    light = np.multiply.outer(darkness, -SHADOW)
    light += 1
    light *= np.asarray(colour, np.float32)
    return light


def roundness(piece: Piece, strength: float = 0.2) -> Floats:
    """Darkness of a round body lit from the upper left: both sides turn away, the right one more."""
    side = np.clip(piece.side, -1.2, 1.2)
    square = side * side
    return square * (strength + side * (0.45 * strength)) - 0.02


def contour(piece: Piece, width: float = 0.006, strength: float = 0.3) -> Floats:
    """Darkness of a gentle line just inside the edge."""
    return limit(1 - piece.depth * (1 / width)) * strength


def crease(piece: Piece, start: Point, stop: Point, width: float) -> Floats:
    """0..1: a soft line between two points in the piece's own coordinates."""
    (u0, v0), (u1, v1) = start, stop
    du, dv = u1 - u0, v1 - v0
    offset_u, offset_v = piece.u - np.float32(u0), piece.v - np.float32(v0)
    place = limit((offset_u * du + offset_v * dv) * (1 / (du * du + dv * dv)))
    gap_u, gap_v = offset_u - place * du, offset_v - place * dv
    near = limit(1 - (gap_u * gap_u + gap_v * gap_v) * (1 / (width * width)))
    return near * near * (1 - 0.5 * place)


def _measure(
    x: Floats, y: Floats, joints: NDArray[np.float64], along: NDArray[np.float64], lengths: NDArray[np.float64]
) -> tuple[Floats, Floats, Floats]:
    """u, v and how far a pixel lies beyond a joint, on the outer side of a bend."""
    u = v = excess = np.zeros((y.shape[0], x.shape[1]), np.float32)
    passed = 0.0
    for index, ((px, py), (ex, ey), length) in enumerate(zip(joints[:-1], along, lengths, strict=True)):
        dx, dy = x - np.float32(px), y - np.float32(py)
        t = dx * np.float32(ex) + dy * np.float32(ey)
        across = dy * np.float32(ex) - dx * np.float32(ey)
        first, last = index == 0, index == len(lengths) - 1
        inside = np.clip(t, -np.inf if first else 0, np.inf if last else float(length))
        beyond = t - inside
        if first:
            u, v, excess = -across, inside, beyond
        else:
            # The plane between two bones decides which of them a pixel belongs to.
            bx, by = along[index - 1] + along[index]
            here = dx * np.float32(bx) + dy * np.float32(by) > 0
            u = np.where(here, -across, u)
            v = np.where(here, inside + np.float32(passed), v)
            excess = np.where(here, beyond, excess)
        passed += float(length)
    return u, v, excess


def _interpolate(v: NDArray[np.float64], width: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Monotone cubic interpolation (Fritsch and Butland 1984): smooth, never beyond its knots."""
    if len(v) < 3:
        return np.interp(at, v, width)
    step = np.diff(v)
    slope = np.diff(width) / step
    same_way = slope[:-1] * slope[1:] > 0
    weight = 3 * (step[:-1] + step[1:])
    divisor = (2 * step[1:] + step[:-1]) * slope[1:] + (step[1:] + 2 * step[:-1]) * slope[:-1]
    mean = weight * slope[:-1] * slope[1:] / np.where(same_way, divisor, 1.0)
    tangent = np.concatenate([slope[:1], np.where(same_way, mean, 0.0), slope[-1:]])
    cell = np.clip(np.searchsorted(v, at, side="right") - 1, 0, len(step) - 1)
    t = (at - v[cell]) / step[cell]
    rise = width[cell] * (1 + 2 * t) * (1 - t) ** 2 + width[cell + 1] * t**2 * (3 - 2 * t)
    return np.asarray(rise + step[cell] * t * (1 - t) * (tangent[cell] * (1 - t) - tangent[cell + 1] * t))


def _smooth_outline(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Closed Catmull-Rom curve through points (n, 2)."""
    return _curve(np.vstack([points[-1:], points, points[:2]]))


def _smooth_path(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Open Catmull-Rom curve through points (n, 2)."""
    if len(points) < 3:
        return points
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    return np.vstack([_curve(padded), points[-1:]])


def _curve(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the uniform Catmull-Rom segments between all but the outermost points (Catmull and Rom 1974)."""
    segments = np.stack([points[:-3], points[1:-2], points[2:-1], points[3:]], axis=1)
    return np.asarray(_BLEND @ segments).reshape(-1, 2)
