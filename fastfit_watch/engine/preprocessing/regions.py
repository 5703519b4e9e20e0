"""Morphology on 0/1 regions, as the published masks use it (FastFit inference specification, section 4.2).

Every function takes and gives uint8 (H, W) regions of 0 and 1 and leaves its argument unchanged.
"""

from __future__ import annotations

import cv2
import numpy as np

from fastfit_watch.engine.preprocessing.labels import Region

_SPECK = 0.0003  # of the picture


def _odd(length: int) -> int:
    return length if length % 2 else length + 1


def dilate(region: Region, full_size: tuple[int, int], iterations: int = 1) -> Region:
    """Grow by the published square kernel: its side is 1/500 of the longer side of `full_size` (height, width), odd.

    Below 1000 pixels that side is 1, and nothing grows.
    """
    side = _odd(max(full_size) // 500)
    return np.asarray(cv2.dilate(region, np.ones((side, side), np.uint8), iterations=iterations), np.uint8)


def dilate_by(region: Region, radius_px: int) -> Region:
    """Grow by a disc of `radius_px` >= 0 pixels."""
    side = 2 * radius_px + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    grown = np.zeros_like(region)
    if not region.any():
        return grown
    left, top, width, height = cv2.boundingRect(region)
    # A disc has no short cut: only the neighbourhood of the region is worth looking at.
    near = np.s_[
        max(0, top - radius_px) : top + height + radius_px,
        max(0, left - radius_px) : left + width + radius_px,
    ]
    grown[near] = cv2.dilate(region[near], kernel)
    return grown


def smooth(region: Region, threshold: int) -> Region:
    """Blur (Gaussian, 1/50 of the longer side, odd) at 0..255 and keep what reaches `threshold`."""
    side = _odd(max(region.shape) // 50)
    blurred = cv2.GaussianBlur(region * 255, (side, side), 0)
    return np.asarray((blurred >= threshold).view(np.uint8))


def fill_hulls(region: Region) -> Region:
    """Replace each connected piece by its filled convex hull."""
    contours, _ = cv2.findContours(region * 255, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros_like(region)
    for contour in contours:
        cv2.fillPoly(filled, [cv2.convexHull(contour)], 1)
    return filled


def keep_largest(region: Region) -> Region:
    """Keep the largest 8-connected piece; the first in scan order on a tie."""
    count, pieces = cv2.connectedComponents(region, connectivity=8)
    if count <= 2:
        return region
    sizes = np.bincount(pieces.ravel())[1:]
    return np.asarray((pieces == 1 + int(sizes.argmax())).view(np.uint8))


def drop_specks(region: Region) -> Region:
    """Drop 8-connected pieces below 0.03 % of the picture: a parser's noise, not a body part or an accessory."""
    # OpenCV's own statistics, which could count as well, take three times as long.
    _, pieces = cv2.connectedComponents(region, connectivity=8)
    kept = np.bincount(pieces.ravel()) >= _SPECK * region.size
    if kept[1:].all():
        return region
    kept[0] = False
    return np.asarray(kept.view(np.uint8).take(pieces))


def coarsen(region: Region, full_size: tuple[int, int]) -> Region:
    """Grow at a quarter of the size and come back: DensePose's fine holes close. Sides are multiples of 4."""
    height, width = region.shape
    small = cv2.resize(region, (width // 4, height // 4), interpolation=cv2.INTER_NEAREST)
    grown = dilate(np.asarray(small, np.uint8), full_size, iterations=2)
    return np.asarray(cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
