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
        large = (pixels + 0.5) * _OVERSAMPLING - 0.5
        left, top = np.maximum(np.floor(large.min(0)).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(large.max(0)).astype(int) + 2, self._large.shape[1::-1])
        if right <= left or bottom <= top:
            return
        cover = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(cover, [_fixed(large - (left, top))], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        columns = ((np.arange(left, right) + 0.5) / _OVERSAMPLING - 0.5 - self.origin[0]) / self.scale
        rows = ((np.arange(top, bottom) + 0.5) / _OVERSAMPLING - 0.5 - self.origin[1]) / self.scale
        x, y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
        share = (cover.astype(np.float32) * (opacity / 255))[..., None]
        block = self._large[top:bottom, left:right]
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
        (height, width), (x0, y0), scale = self.size, self.origin, self.scale
        corners = np.array([(-1, -1), (width + 1, -1), (width + 1, height + 1), (-1, height + 1)], np.float64)
        self.fill((corners - (x0, y0)) / scale, paint)

    def picture(self) -> NDArray[np.uint8]:
        """The finished picture, uint8 (H, W, 3)."""
        small = cv2.resize(self._large, self.size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(np.clip(np.rint(small), 0, 255), np.uint8)

    def to_pixels(self, points: Points) -> Points:
        """Person coordinates to pixels of the final size."""
        return np.asarray(points, np.float64) * self.scale + self.origin


def _fixed(pixels: Points) -> NDArray[np.int32]:
    return np.rint(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def limb(start: Points, end: Points, start_radius: float, end_radius: float) -> Points:
    """Outline of a tapered limb with round ends."""
    along = end - start
    angle = float(np.arctan2(along[1], along[0]))
    turn = np.linspace(0, np.pi, 9)
    far = end + end_radius * np.stack([np.cos(angle + np.pi / 2 - turn), np.sin(angle + np.pi / 2 - turn)], 1)
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


def flat(colour: tuple[float, float, float]) -> Paint:
    """Paint of one colour."""
    return lambda x, y: np.broadcast_to(np.asarray(colour, np.float32), (*x.shape, 3))
