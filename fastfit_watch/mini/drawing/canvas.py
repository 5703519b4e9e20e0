"""Painting shapes: anti-aliased colour at twice the size, and exact labels at the final one, from the same outlines."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2) as (x, y), person heights
Values = NDArray[np.float32]
Paint = Callable[[Values, Values], Values]
_OVERSAMPLING = 2
_SUBPIXEL_BITS = 4


class Canvas:
    """A picture in person coordinates: (0, 0) is the top of the head, y points down, 1 is the person's height.

    origin: pixel of (0, 0) as (x, y); scale: pixels of one person height; both at the final size (height, width).
    """

    def __init__(self, size: tuple[int, int], origin: tuple[float, float], scale: float, maps: tuple[str, ...]) -> None:
        self.size, self.origin, self.scale = size, origin, scale
        self._large = np.zeros((size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING, 3), np.float32)
        self.labels = {name: np.zeros(size, np.uint8) for name in maps}

    def fill(
        self, outline: Points, paint: Paint, labels: Mapping[str, int] | None = None, opacity: float = 1.0
    ) -> None:
        """Fill a closed outline. `paint` gets x and y (person heights) of a block of pixels and returns RGB 0..255."""
        pixels = self.to_pixels(outline)
        for name, value in (labels or {}).items():
            cv2.fillPoly(self.labels[name], [_fixed(pixels)], value, cv2.LINE_8, _SUBPIXEL_BITS)
        if not opacity:
            return
        large = (pixels + 0.5) * _OVERSAMPLING - 0.5
        left, top = np.maximum(np.floor(large.min(0)).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(large.max(0)).astype(int) + 2, self._large.shape[1::-1])
        if right <= left or bottom <= top:
            return
        cover = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(cover, [_fixed(large - (left, top))], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        share = (cover.astype(np.float32) * (opacity / 255))[..., None]
        block = self._large[top:bottom, left:right]
        if isinstance(paint, Flat):
            block += share * (paint.colour - block)
            return
        columns = ((np.arange(left, right) + 0.5) / _OVERSAMPLING - 0.5 - self.origin[0]) / self.scale
        rows = ((np.arange(top, bottom) + 0.5) / _OVERSAMPLING - 0.5 - self.origin[1]) / self.scale
        x, y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
        block += share * (paint(x, y) - block)

    def stroke(self, points: Points, width: float, colour: tuple[float, float, float], opacity: float = 1.0) -> None:
        """Draw an open line of a width in person heights; labels stay as they are."""
        large = (self.to_pixels(points) + 0.5) * _OVERSAMPLING - 0.5
        pad = width * self.scale * _OVERSAMPLING / 2 + 2
        left, top = np.maximum(np.floor(large.min(0) - pad).astype(int), 0)
        right, bottom = np.minimum(np.ceil(large.max(0) + pad).astype(int), self._large.shape[1::-1])
        if right <= left or bottom <= top:
            return
        cover = np.zeros((bottom - top, right - left), np.uint8)
        thickness = max(1, round(width * self.scale * _OVERSAMPLING))
        cv2.polylines(cover, [_fixed(large - (left, top))], False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        share = (cover.astype(np.float32) * (opacity / 255))[..., None]
        block = self._large[top:bottom, left:right]
        block += share * (np.asarray(colour, np.float32) - block)

    def cover(self, paint: Paint) -> None:
        """Paint the whole picture."""
        rows, columns = (
            (((np.arange(length) + 0.5) / _OVERSAMPLING - 0.5 - start) / self.scale).astype(np.float32)
            for length, start in zip(self._large.shape[:2], self.origin[::-1], strict=True)
        )
        self._large[:] = paint(*np.meshgrid(columns, rows))

    def picture(self) -> NDArray[np.uint8]:
        """The finished picture, uint8 (H, W, 3)."""
        small = cv2.resize(self._large, self.size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(np.clip(np.rint(small), 0, 255), np.uint8)

    def to_pixels(self, points: Points) -> Points:
        """Person coordinates to pixels of the final size."""
        return np.asarray(points, np.float64) * self.scale + self.origin


def _fixed(pixels: Points) -> NDArray[np.int32]:
    return np.rint(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def limb(start: Points, end: Points, start_radius: float, end_radius: float, *, flat_end: bool = False) -> Points:
    """Outline of a tapered limb with round ends; flat_end cuts it straight across at `end`, as cloth is cut."""
    along = end - start
    angle = float(np.arctan2(along[1], along[0]))
    turn = np.linspace(0, np.pi, 9)
    far_turn = turn[[0, -1]] if flat_end else turn
    far = end + end_radius * np.stack([np.cos(angle + np.pi / 2 - far_turn), np.sin(angle + np.pi / 2 - far_turn)], 1)
    near = start + start_radius * np.stack([np.cos(angle - np.pi / 2 - turn), np.sin(angle - np.pi / 2 - turn)], 1)
    return np.concatenate([far, near])


def ellipse(
    centre: tuple[float, float] | Points, radii: tuple[float, float], start: float = 0, stop: float = 360
) -> Points:
    """Outline of an ellipse or, between two angles in degrees (0 right, 90 down), of a segment of it."""
    angles = np.radians(np.linspace(start, stop, 33))
    return np.asarray(centre) + np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], 1)


def smooth(points: Points, rounds: int = 2) -> Points:
    """Round the corners of a closed outline (Chaikin 1974)."""
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
    return points


def smooth_open(points: Points, rounds: int = 2) -> Points:
    """Round the corners of a line but for its two ends (Chaikin 1974)."""
    for _ in range(rounds):
        before, after = points[:-1], points[1:]
        middle = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], 1).reshape(-1, 2)
        points = np.vstack([points[:1], middle[1:-1], points[-1:]])
    return points


class Flat:
    """Paint of one colour."""

    def __init__(self, colour: tuple[float, float, float]) -> None:
        self.colour = np.asarray(colour, np.float32)

    def __call__(self, x: Values, y: Values) -> Values:
        return np.broadcast_to(self.colour, (*x.shape, 3))


def flat(colour: tuple[float, float, float]) -> Flat:
    """Paint of one colour."""
    return Flat(colour)
