"""The truth about every pixel of a drawn person: LIP, ATR and DensePose labels, and the key points.

Ids follow the FastFit inference specification, section 4.1; DensePose ids are those of a body seen from the front.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fastfit_watch.mini.body import EYE_V, FOOT, LEFT, RIGHT, SHOULDER_V, SIGNS, TORSO, UPPER_ARM, Figure
from fastfit_watch.mini.canvas import Bytes, Canvas, Floats, Piece, profile

POINTS = 134
_ROOM = 0.006  # DensePose's shapes are a little larger than the skin


class Surface(IntEnum):
    """What is seen at a pixel. Pairs are (right, left) of the person."""

    BACKGROUND = 0
    HAIR = 1
    FACE = 2
    UPPER = 3
    PANTS = 4
    SKIRT = 5
    DRESS = 6
    RIGHT_ARM = 7
    LEFT_ARM = 8
    RIGHT_LEG = 9
    LEFT_LEG = 10
    RIGHT_SHOE = 11
    LEFT_SHOE = 12
    BAG = 13
    CHEST = 14


ARMS = (Surface.RIGHT_ARM, Surface.LEFT_ARM)
LEGS = (Surface.RIGHT_LEG, Surface.LEFT_LEG)
SHOES = (Surface.RIGHT_SHOE, Surface.LEFT_SHOE)

# Indexed by Surface.
_LIP = np.array([0, 2, 13, 5, 9, 12, 6, 15, 14, 17, 16, 19, 18, 0, 5], np.uint8)
_ATR = np.array([0, 2, 11, 4, 6, 5, 7, 15, 14, 13, 12, 10, 9, 16, 4], np.uint8)
_WORN = np.array([0, 0, 0, 1, 2, 2, 3, 0, 0, 0, 0, 4, 4, 5, 0], np.uint8)

# A head with its ears and the upper half of its neck, wide enough for hair close to it.
_HEAD_OUTLINE = (
    (0.0, -0.077), (0.03, -0.072), (0.05, -0.05), (0.06, -0.01), (0.058, 0.02), (0.05, 0.042), (0.038, 0.062),
    (0.036, 0.092), (-0.036, 0.092), (-0.038, 0.062), (-0.05, 0.042), (-0.058, 0.02), (-0.06, -0.01), (-0.05, -0.05),
    (-0.03, -0.072),
)  # fmt: skip
_TORSO = 2
_HANDS, _FEET, _HEAD = (3, 4), (6, 5), (23, 24)
_THIGHS, _CALVES, _UPPER_ARMS, _FOREARMS = (9, 10), (13, 14), (18, 17), (22, 21)


def read_lip(beneath: Bytes) -> Bytes:
    """LIP labels; a bag has none, so the surface beneath it counts."""
    return _LIP[_name_chest(beneath)]


def read_atr(surface: Bytes) -> Bytes:
    """ATR labels."""
    return _ATR[_name_chest(surface)]


def read_worn(surface: Bytes) -> Bytes:
    """Category label + 1 of the garment seen at a pixel, 0 where there is none."""
    return _WORN[surface]


def mark_body(canvas: Canvas, figure: Figure) -> Bytes:
    """DensePose parts 0..24 of the body beneath the clothes, uint8 (h, w)."""
    parts = np.zeros(canvas.pixels.shape[1:3], np.uint8)
    build = figure.build
    for side in (RIGHT, LEFT):
        knee = figure.thigh(side)
        leg = canvas.tube(figure.leg_bones(side), build.leg(knee, _ROOM))
        _mark(parts, leg, leg.v <= knee, _THIGHS[side])
        _mark(parts, leg, leg.v > knee, _CALVES[side])
        foot = canvas.blob(figure.foot_frame(side), FOOT)
        _mark(parts, foot, foot.v > -0.004, _FEET[side])
    torso = canvas.tube(figure.spine, profile(*build.torso(_ROOM)))
    _mark(parts, torso, torso.v < TORSO + 0.036 - 0.36 * np.abs(torso.u), _TORSO)
    for side in (RIGHT, LEFT):
        arm = canvas.tube(figure.arm_bones(side), build.arm(_ROOM), round_start=True)
        _mark(parts, arm, arm.v <= UPPER_ARM, _UPPER_ARMS[side])
        _mark(parts, arm, arm.v > UPPER_ARM, _FOREARMS[side])
        hand = canvas.tube((figure.wrists[side], figure.hands[side]), build.hand(_ROOM / 2), round_stop=True)
        _mark(parts, hand, hand.v > 0, _HANDS[side])
    head = canvas.blob(figure.head_frame, _HEAD_OUTLINE)
    for side in (RIGHT, LEFT):
        _mark(parts, head, (head.u >= 0) == (side == LEFT), _HEAD[side])
    return parts


def read_points(canvas: Canvas, figure: Figure) -> tuple[Floats, Floats]:
    """Key points (134, 2) in pixels of the canvas, and scores (134,).

    The order is the inference specification's, section 3.2, step 4. Only the 18 body points exist here.
    """
    frame = figure.head_frame
    sides = [[each[side] for each in (figure.shoulders, figure.elbows, figure.wrists)] for side in (RIGHT, LEFT)]
    legs = [figure.leg_bones(side) for side in (RIGHT, LEFT)]
    face = [frame.place(SIGNS[side] * u, v) for u, v in ((0.0205, EYE_V), (0.05, 0.008)) for side in (RIGHT, LEFT)]
    body = [frame.place(0.0, 0.026), figure.on_torso(0.0, SHOULDER_V), *sides[0], *sides[1], *legs[0], *legs[1], *face]
    points = np.full((POINTS, 2), -1, np.float32)
    points[: len(body)] = np.array(body) * canvas.scale + canvas.origin - 0.5
    scores = np.zeros(POINTS, np.float32)
    scores[: len(body)] = 1
    return points, scores


def _name_chest(surface: Bytes) -> Bytes:
    """Bare chest counts as the garment around it: no parser has a label for it."""
    dressed = bool((surface == Surface.DRESS).any())
    return np.where(surface == Surface.CHEST, np.uint8(Surface.DRESS if dressed else Surface.UPPER), surface)


def _mark(parts: Bytes, piece: Piece, where: NDArray[np.bool_], part: int) -> None:
    parts[piece.rows, piece.columns][(piece.depth > 0) & where] = part
