"""Draw DWPose key points as the skeleton picture the model was trained on. NumPy and OpenCV only.

Source: FastFit inference specification, section 3.2, steps 1 and 5 to 7. The 134 points of a person are 0-17 body in
OpenPose order, 18-23 feet (not drawn), 24-91 face, 92-112 left hand, 113-133 right hand.
"""

from __future__ import annotations

import colorsys
import math
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
Size = tuple[int, int]

_VISIBLE = 0.3  # score above which a body point exists; face and hand scores are not used
_BODY, _FACE = slice(0, 18), slice(24, 92)
_LEFT_HAND, _RIGHT_HAND = slice(92, 113), slice(113, 134)
_COLOURS = (
    (255, 0, 0),
    (255, 85, 0),
    (255, 170, 0),
    (255, 255, 0),
    (170, 255, 0),
    (85, 255, 0),
    (0, 255, 0),
    (0, 255, 85),
    (0, 255, 170),
    (0, 255, 255),
    (0, 170, 255),
    (0, 85, 255),
    (0, 0, 255),
    (85, 0, 255),
    (170, 0, 255),
    (255, 0, 255),
    (255, 0, 170),
    (255, 0, 85),
)
# Joints of each limb, in drawing order; limb i has colour i.
_LIMBS = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
)
_FINGERS = ((0, 1, 2, 3, 4), (0, 5, 6, 7, 8), (0, 9, 10, 11, 12), (0, 13, 14, 15, 16), (0, 17, 18, 19, 20))


def detect_size(size: Size) -> Size:
    """Return the (height, width) at which people are detected and drawn: short side 512, both multiples of 64."""
    scale = 512 / min(size)
    height, width = (int(np.round(side * scale / 64)) * 64 for side in size)
    return height, width


def draw_pose(keypoints: NDArray[np.floating], scores: NDArray[np.floating], size: Size) -> Canvas:
    """Draw all people on black.

    Parameters
    ----------
    keypoints : float (n, 134, 2), (x, y) in pixels of the picture at `size`; (-1, -1) where a point is missing.
    scores : float (n, 134), 0..1; a body point is drawn if its score is above 0.3. A face or hand point is drawn
        wherever it lies right of and below the picture's first pixel, whatever its score.
    size : (height, width) of the drawing.

    Returns
    -------
    uint8 (height, width, 3), RGB.
    """
    canvas = np.zeros((*size, 3), np.uint8)
    scale = np.array([size[1], size[0]], np.float64)
    # The model's own drawing went through relative coordinates; without that detour some points truncate differently.
    points = np.asarray(keypoints, np.float64) / scale * scale
    canvas = _draw_bodies(canvas, points[:, _BODY], np.asarray(scores)[:, _BODY] > _VISIBLE)
    for face in points[:, _FACE]:
        _draw_dots(canvas, face, 3, (255, 255, 255))
    for side in (_LEFT_HAND, _RIGHT_HAND):
        for hand in points[:, side]:
            _draw_hand(canvas, hand)
    return canvas


def resize_back(drawing: Canvas, size: Size) -> Canvas:
    """Resize a drawing to (height, width), bilinear: what the model saw in training, although Lanczos was meant."""
    return np.asarray(cv2.resize(drawing, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)


def _draw_bodies(canvas: Canvas, bodies: NDArray[np.float64], visible: NDArray[np.bool_]) -> Canvas:
    """Draw limbs, darken them, and put joints on top."""
    for (first, second), colour in zip(_LIMBS, _COLOURS[: len(_LIMBS)], strict=True):
        for body, seen in zip(bodies, visible, strict=True):
            if seen[first] and seen[second]:
                _draw_limb(canvas, body[first], body[second], colour)
    canvas = (canvas * 0.6).astype(np.uint8)
    for joint, colour in enumerate(_COLOURS):
        for body, seen in zip(bodies, visible, strict=True):
            if seen[joint]:
                cv2.circle(canvas, _truncate(body[joint]), 4, colour, -1)
    return canvas


def _draw_limb(
    canvas: Canvas, first: NDArray[np.float64], second: NDArray[np.float64], colour: tuple[int, ...]
) -> None:
    x, y = (first + second) / 2
    dx, dy = first - second
    length = math.hypot(dx, dy)
    angle = math.degrees(math.atan2(dy, dx))
    outline = cv2.ellipse2Poly((int(x), int(y)), (int(length / 2), 4), int(angle), 0, 360, 1)
    cv2.fillConvexPoly(canvas, outline, colour)


def _draw_hand(canvas: Canvas, hand: NDArray[np.float64]) -> None:
    bones = [bone for finger in _FINGERS for bone in pairwise(finger)]
    for index, (first, second) in enumerate(bones):
        ends = _truncate(hand[first]), _truncate(hand[second])
        if min(*ends[0], *ends[1]) > 0:
            colour = tuple(255 * part for part in colorsys.hsv_to_rgb(index / len(bones), 1, 1))
            cv2.line(canvas, *ends, colour, 2)
    _draw_dots(canvas, hand, 4, (0, 0, 255))


def _draw_dots(canvas: Canvas, points: NDArray[np.float64], radius: int, colour: tuple[int, ...]) -> None:
    for point in points:
        centre = _truncate(point)
        if min(centre) > 0:
            cv2.circle(canvas, centre, radius, colour, -1)


def _truncate(point: NDArray[np.float64]) -> tuple[int, int]:
    return int(point[0]), int(point[1])
