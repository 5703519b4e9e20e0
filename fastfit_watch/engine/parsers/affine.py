"""The upright three-point warp shared by DWPose and SCHP (FastFit inference specification, sections 3.2 and 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Anchor:
    """A point (x, y) and the length in pixels of an arm that goes straight up from it."""

    centre: ArrayLike
    arm: float

    def points(self) -> NDArray[np.float32]:
        """Return float32 (3, 2): the centre, the arm's end, and that end turned a quarter round itself."""
        points = np.empty((3, 2), np.float32)
        points[0] = self.centre
        points[1] = np.add(self.centre, (0, -self.arm))
        across, down = points[0] - points[1]
        points[2] = points[1] + np.array([-down, across], np.float32)
        return points


def upright_warp(source: Anchor, target: Anchor) -> NDArray[np.float64]:
    """Return the 2x3 matrix for `cv2.warpAffine` that lays `source` on `target`: a shift and one scale, no turn.

    The points are rounded to float32 first, as both released parsers do.
    """
    matrix: NDArray[np.float64] = cv2.getAffineTransform(source.points(), target.points())
    return matrix
