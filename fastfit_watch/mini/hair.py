"""Hair: what falls behind the shoulders, and what lies on the head and over the clothes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastfit_watch.mini.body import HEAD_SIZE, Person
from fastfit_watch.mini.canvas import Canvas, Colour, Floats, Frame, Piece, Point, contour, shade, turned
from fastfit_watch.mini.fabric import darker
from fastfit_watch.mini.labels import Surface

# Outlines in the head's frame, from the crown down the person's left side (a > 0); the other half is mirrored.
_BEHIND: dict[str, tuple[Point, ...]] = {
    "bob": ((0.0, -0.078), (0.038, -0.07), (0.06, -0.035), (0.066, 0.01), (0.068, 0.05), (0.062, 0.078), (0.03, 0.082)),
    "long": (
        (0.0, -0.078),
        (0.038, -0.07),
        (0.06, -0.035),
        (0.067, 0.02),
        (0.074, 0.09),
        (0.08, 0.16),
        (0.07, 0.212),
        (0.03, 0.222),
    ),
    "waves": (
        (0.0, -0.079),
        (0.04, -0.071),
        (0.064, -0.03),
        (0.07, 0.02),
        (0.08, 0.055),
        (0.076, 0.09),
        (0.088, 0.125),
        (0.078, 0.165),
        (0.04, 0.18),
    ),
    "curls": (),
    "afro": (),
    "ponytail": (),
    "bun": (),
}
# The hairline of the front: from the left temple over the forehead to the right one.
_FRINGES: dict[str, tuple[Point, ...]] = {
    "cropped": ((0.049, -0.012), (0.044, -0.034), (0.02, -0.041), (-0.02, -0.041), (-0.044, -0.034), (-0.049, -0.012)),
    "swept": (
        (0.049, -0.008),
        (0.043, -0.03),
        (0.026, -0.036),
        (0.0, -0.033),
        (-0.026, -0.022),
        (-0.044, -0.026),
        (-0.049, -0.008),
    ),
    "parted": (
        (0.05, 0.0),
        (0.044, -0.024),
        (0.024, -0.046),
        (0.014, -0.052),
        (-0.012, -0.034),
        (-0.036, -0.022),
        (-0.05, 0.0),
    ),
    "bob": (
        (0.052, 0.03),
        (0.046, 0.0),
        (0.04, -0.018),
        (0.0, -0.0235),
        (-0.04, -0.018),
        (-0.046, 0.0),
        (-0.052, 0.03),
    ),
    "long": (
        (0.053, 0.035),
        (0.046, -0.008),
        (0.03, -0.034),
        (0.004, -0.053),
        (-0.03, -0.034),
        (-0.046, -0.008),
        (-0.053, 0.035),
    ),
    "waves": (
        (0.053, 0.035),
        (0.047, -0.008),
        (0.034, -0.03),
        (0.018, -0.05),
        (-0.016, -0.033),
        (-0.042, -0.012),
        (-0.053, 0.035),
    ),
    "bun": (
        (0.05, -0.002),
        (0.043, -0.028),
        (0.022, -0.042),
        (0.0, -0.045),
        (-0.022, -0.042),
        (-0.043, -0.028),
        (-0.05, -0.002),
    ),
    "ponytail": (
        (0.05, 0.004),
        (0.043, -0.024),
        (0.028, -0.036),
        (0.0, -0.032),
        (-0.03, -0.024),
        (-0.044, -0.014),
        (-0.05, 0.004),
    ),
    "curls": ((0.05, -0.004), (0.04, -0.026), (0.014, -0.032), (-0.014, -0.032), (-0.04, -0.026), (-0.05, -0.004)),
    "afro": ((0.05, -0.002), (0.043, -0.03), (0.022, -0.042), (-0.022, -0.042), (-0.043, -0.03), (-0.05, -0.002)),
}
# The outer line of the front, from the right temple over the crown to the left one.
_CROWN: tuple[Point, ...] = (
    (-0.058, 0.0),
    (-0.058, -0.03),
    (-0.046, -0.06),
    (-0.022, -0.076),
    (0.0, -0.079),
    (0.022, -0.076),
    (0.046, -0.06),
    (0.058, -0.03),
    (0.058, 0.0),
)
_CLOSE_CROWN: tuple[Point, ...] = (
    (-0.053, 0.0),
    (-0.0545, -0.028),
    (-0.045, -0.058),
    (-0.022, -0.074),
    (0.0, -0.077),
    (0.022, -0.074),
    (0.045, -0.058),
    (0.0545, -0.028),
    (0.053, 0.0),
)
_CLOSE = ("cropped", "bun", "ponytail", "swept")
# Locks that fall in front of the shoulders, in the head's frame, for the left side.
_LOCKS: dict[str, tuple[Point, ...]] = {
    "long": (
        (0.052, 0.0),
        (0.062, 0.03),
        (0.07, 0.09),
        (0.078, 0.15),
        (0.074, 0.2),
        (0.056, 0.214),
        (0.046, 0.17),
        (0.045, 0.1),
        (0.047, 0.05),
    ),
    "waves": (
        (0.052, 0.0),
        (0.066, 0.03),
        (0.076, 0.06),
        (0.072, 0.095),
        (0.084, 0.13),
        (0.074, 0.17),
        (0.052, 0.172),
        (0.056, 0.13),
        (0.044, 0.095),
        (0.05, 0.05),
    ),
    "bob": ((0.052, 0.0), (0.064, 0.03), (0.067, 0.06), (0.058, 0.077), (0.046, 0.07), (0.046, 0.04)),
}


def draw_hair_behind(canvas: Canvas, person: Person) -> None:
    """Hair that body and clothes cover."""
    frame = _frame(person)
    dark = darker(person.hair, 0.24)
    outline = _BEHIND.get(person.hair_cut)
    if outline:
        piece = canvas.blob(frame, _mirrored(outline))
        canvas.paint(piece, shade(dark, _strands(piece, 0.08)), Surface.HAIR)
    elif person.hair_cut == "bun":
        _ball(canvas, frame.place(0.0, -0.088), 0.03, person.hair)
    elif person.hair_cut == "ponytail":
        tail = ((0.03, -0.06), (0.062, -0.05), (0.084, 0.0), (0.086, 0.06), (0.07, 0.11), (0.058, 0.07), (0.05, 0.0))
        piece = canvas.blob(frame, tail)
        canvas.paint(piece, shade(darker(person.hair, 0.1), _strands(piece, 0.1) + contour(piece)), Surface.HAIR)
    elif person.hair_cut in ("curls", "afro"):
        large = person.hair_cut == "afro"
        for a, b, radius in _curl_places(1.28 if large else 1.0, 0.034 if large else 0.026):
            _ball(canvas, frame.place(a, b), radius, darker(person.hair, 0.1), 0.14)


def draw_hair_before(canvas: Canvas, person: Person) -> None:
    """Hair on the head, and the locks that lie over the clothes."""
    if person.hair_cut == "bald":
        return
    frame = _frame(person)
    for sign in (-1.0, 1.0):
        lock = [(sign * a, b) for a, b in _LOCKS.get(person.hair_cut, ())]
        if lock:
            piece = canvas.blob(frame, lock)
            canvas.paint(piece, shade(person.hair, _strands(piece, 0.12) + contour(piece, 0.005, 0.2)), Surface.HAIR)
    crown = _CLOSE_CROWN if person.hair_cut in _CLOSE else _CROWN
    cap = canvas.blob(frame, [*crown, *_FRINGES[person.hair_cut]])
    canvas.paint(cap, shade(person.hair, _shine(cap) + contour(cap, 0.005, 0.2)), Surface.HAIR)
    if person.hair_cut in ("curls", "afro"):
        for a, b, radius in _curl_places(1.05 if person.hair_cut == "afro" else 0.9, 0.02):
            if b < -0.02:
                _ball(canvas, frame.place(a, b), radius, person.hair, 0.2)
    else:
        _comb(canvas, person, frame)


def _comb(canvas: Canvas, person: Person, frame: Frame) -> None:
    """A few darker strands that show which way the hair is combed."""
    line = darker(person.hair, 0.3)
    root = {"parted": 0.014, "waves": 0.018, "long": 0.004}.get(person.hair_cut)
    if root is None:
        for a, b, c in ((-0.03, -0.066, -0.04), (-0.006, -0.074, -0.018), (0.02, -0.07, 0.012)):
            canvas.stroke(
                [frame.place(a, b), frame.place((a + c) / 2 - 0.004, -0.056), frame.place(c, -0.044)], 0.0022, line, 0.4
            )
        return
    canvas.stroke([frame.place(root, -0.051), frame.place(root * 0.9, -0.075)], 0.0026, line, 0.6)
    for sign in (-1.0, 1.0):
        for reach in (0.022, 0.034):
            path = [(root, -0.068), (root + sign * reach * 0.7, -0.06 + reach * 0.2), (sign * (reach + 0.016), -0.03)]
            canvas.stroke([frame.place(a, b) for a, b in path], 0.0022, line, 0.35)


def _frame(person: Person) -> Frame:
    figure = person.figure
    return turned(figure.head, figure.head_angle, HEAD_SIZE, mirrored=person.hair_flip)


def _mirrored(half: Sequence[Point]) -> list[Point]:
    return [*half, *((-a, b) for a, b in reversed(half[1:]))]


def _curl_places(reach: float, radius: float) -> list[tuple[float, float, float]]:
    """Centres and radii of curls around the crown."""
    angles = np.linspace(-2.05, 2.05, 11)
    wobble = 1 + 0.05 * np.cos(7 * angles)
    ring = [
        (float(np.sin(a) * 0.05 * reach * w), float(-0.022 - np.cos(a) * 0.046 * reach * w), radius)
        for a, w in zip(angles, wobble, strict=True)
    ]
    return [*ring, (-0.02, -0.05, radius), (0.02, -0.05, radius)]


def _ball(canvas: Canvas, centre: Point, radius: float, colour: Colour, line: float = 0.22) -> None:
    ball = canvas.blob(turned(centre, 0.0, radius), _CIRCLE)
    dark = 0.1 * (ball.u + ball.v) + contour(ball, radius * 0.24, line)
    canvas.paint(ball, shade(colour, dark), Surface.HAIR)


_CIRCLE: tuple[Point, ...] = tuple(
    (float(np.cos(a)), float(np.sin(a))) for a in np.linspace(0, 2 * np.pi, 10, endpoint=False)
)


def _strands(piece: Piece, strength: float) -> Floats:
    return strength * np.sin(piece.u * 420 + piece.v * 30) * 0.5 + 0.5 * strength


def _shine(piece: Piece) -> Floats:
    """A soft light band across the crown, darker towards the sides."""
    band = np.clip(1 - ((piece.v + 0.058 - 4.5 * piece.u * piece.u) * 55) ** 2, 0, 1)
    return 28 * piece.u * piece.u - 0.14 * band
