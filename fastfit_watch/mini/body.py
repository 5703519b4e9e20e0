"""Who stands there and how: proportions, looks and joints, drawn from a seed. Lengths in body units (see canvas)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastfit_watch.mini.canvas import Colour, Frame, Point, Profile, profile, turned

RIGHT, LEFT = 0, 1  # the person's own sides; the right one is on the left of the picture
SIGNS = (-1.0, 1.0)

NECK_Y = 0.165
PELVIS_Y = 0.5
ANKLE_Y = 0.925
SHOULDER_V = 0.045  # shoulder joint below the neck's base, along the torso
ARMPIT_V = 0.085
WAIST_V = 0.225
TORSO = PELVIS_Y - NECK_Y
UPPER_ARM = 0.15
FOREARM = 0.135
HAND = 0.05
EYE_V = 0.004  # eyes below the middle of the head
HEAD_SIZE = 1.1
HEAD_RISE = 0.102  # centre of the head above the neck's base

SKINS: tuple[Colour, ...] = (
    (252, 224, 202),
    (246, 209, 182),
    (235, 190, 158),
    (221, 169, 133),
    (198, 143, 106),
    (168, 114, 80),
    (134, 88, 62),
    (104, 68, 50),
)
HAIRS: tuple[Colour, ...] = (
    (44, 38, 42),
    (66, 48, 42),
    (98, 66, 48),
    (138, 92, 58),
    (182, 132, 78),
    (226, 190, 126),
    (166, 82, 52),
    (112, 54, 44),
    (172, 168, 170),
    (86, 74, 96),
)
# Half width of a head from its top to the chin, around its centre.
FACE = (
    (-0.07, 0.0),
    (-0.066, 0.018),
    (-0.055, 0.034),
    (-0.03, 0.048),
    (0.0, 0.0515),
    (0.022, 0.049),
    (0.04, 0.0405),
    (0.055, 0.027),
    (0.0635, 0.014),
    (0.068, 0.0),
)
# A bare foot from its ankle: x towards the toes, y down.
FOOT = (
    (-0.014, -0.02),
    (-0.017, 0.02),
    (-0.021, 0.045),
    (-0.012, 0.055),
    (0.015, 0.059),
    (0.045, 0.063),
    (0.06, 0.058),
    (0.056, 0.045),
    (0.034, 0.026),
    (0.017, 0.006),
    (0.014, -0.02),
)

HAIR_CUTS = ("cropped", "swept", "parted", "bob", "long", "waves", "bun", "ponytail", "curls", "afro", "bald")


@dataclass(frozen=True)
class Build:
    """Half widths of the torso at girth 1, and factors for the width of the limbs."""

    shoulder: float = 0.1
    chest: float = 0.088
    waist: float = 0.073
    hip: float = 0.09
    limb: float = 1.0

    def torso(self, ease: float = 0.0) -> tuple[Point, ...]:
        """Knots (v, half width) from the neck's base to below the hips, `ease` wider."""
        return (
            (0.0, 0.036),
            (0.007, self.shoulder * 0.66),
            (0.016, self.shoulder * 0.95),
            (SHOULDER_V, self.shoulder + 0.004 + ease * 0.5),
            (ARMPIT_V, (self.shoulder + self.chest) / 2 + ease),
            (0.125, self.chest + ease),
            (WAIST_V, self.waist + ease),
            (0.305, self.hip * 0.97 + ease),
            (TORSO, self.hip + ease),
            (0.375, self.hip + ease),
        )

    def arm(self, ease: float = 0.0) -> Profile:
        """Half width from the shoulder to the wrist."""
        k = self.limb
        return profile(
            (0.0, 0.0275 * k + ease),
            (0.06, 0.0255 * k + ease),
            (UPPER_ARM, 0.021 * k + ease),
            (UPPER_ARM + 0.045, 0.0205 * k + ease),
            (UPPER_ARM + FOREARM + 0.006, 0.0135 * k + ease),
        )

    def leg(self, knee: float, ease: float = 0.0) -> Profile:
        """Half width from the hip to the ankle, with the knee `knee` below the hip."""
        k = self.limb
        return profile(
            (0.0, 0.041 * (0.3 + 0.7 * k) + ease),
            (knee * 0.45, 0.043 * k + ease),
            (knee, 0.0295 * k + ease),
            (knee + 0.07, 0.0295 * k + ease),
            (2 * knee - 0.015, 0.0165 * k + ease),
            (2 * knee + 0.006, 0.016 * k + ease),
        )

    def hand(self, ease: float = 0.0) -> Profile:
        """Half width from the wrist to the fingertips."""
        k = 0.5 + 0.5 * self.limb
        return profile(
            (-0.004, 0.0135 * k + ease),
            (0.014, 0.0185 * k + ease),
            (0.032, 0.0165 * k + ease),
            (0.05, 0.0075 * k + ease),
        )


@dataclass(frozen=True)
class Figure:
    """Joints (x, y) of one standing person; pairs are (right, left)."""

    build: Build
    neck: Point
    pelvis: Point
    head: Point
    head_angle: float
    shoulders: tuple[Point, Point]
    elbows: tuple[Point, Point]
    wrists: tuple[Point, Point]
    hands: tuple[Point, Point]
    hips: tuple[Point, Point]
    knees: tuple[Point, Point]
    ankles: tuple[Point, Point]

    @property
    def spine(self) -> tuple[Point, Point]:
        """The torso's bone, from the neck's base to the pelvis."""
        return self.neck, self.pelvis

    @property
    def lean(self) -> float:
        """Radians by which the spine leans to the right of the picture, from the pelvis up."""
        return float(np.arctan2(self.neck[0] - self.pelvis[0], self.pelvis[1] - self.neck[1]))

    @property
    def head_frame(self) -> Frame:
        """The head's place, with its origin between the eyes' corners and the ears."""
        return turned(self.head, self.head_angle, HEAD_SIZE)

    def foot_frame(self, side: int) -> Frame:
        """The foot's place at its ankle: across to the toes, which point outwards, along to the sole."""
        return turned(self.ankles[side], 0.0, mirrored=side == RIGHT)

    def leg_bones(self, side: int) -> tuple[Point, Point, Point]:
        """Hip, knee, ankle."""
        return self.hips[side], self.knees[side], self.ankles[side]

    def arm_bones(self, side: int) -> tuple[Point, Point, Point]:
        """Shoulder, elbow, wrist."""
        return self.shoulders[side], self.elbows[side], self.wrists[side]

    def thigh(self, side: int) -> float:
        """Distance from the hip to the knee."""
        return float(np.hypot(*np.subtract(self.knees[side], self.hips[side])))

    def on_torso(self, u: float, v: float) -> Point:
        """Body units of a place on the torso, u to the right of the picture and v down the spine."""
        cos, sin = float(np.cos(self.lean)), float(np.sin(self.lean))
        return self.neck[0] + u * cos - v * sin, self.neck[1] + u * sin + v * cos


@dataclass(frozen=True)
class Person:
    """Everything that stays when the clothes change."""

    figure: Figure
    skin: Colour
    hair: Colour
    hair_cut: str
    hair_flip: bool
    eyes: Colour
    lips: Colour
    feminine: bool
    smile: float
    beard: bool
    glasses: bool


def choose_person(rng: np.random.Generator) -> Person:
    """Draw a person: build, pose, skin, hair and face."""
    feminine = bool(rng.random() < 0.56)
    figure = _choose_figure(rng, feminine)
    tone = rng.uniform(0, len(SKINS) - 1)
    skin = _mix(SKINS[int(tone)], SKINS[int(tone) + 1], tone % 1)
    hair = _jitter(rng, HAIRS[int(rng.integers(len(HAIRS)))], 7)
    weights = (
        np.array([0.03, 0.08, 0.1, 0.16, 0.18, 0.14, 0.12, 0.09, 0.06, 0.04, 0.0])
        if feminine
        else np.array([0.26, 0.24, 0.2, 0.02, 0.03, 0.03, 0.03, 0.0, 0.08, 0.05, 0.06])
    )
    return Person(
        figure,
        skin,
        hair,
        HAIR_CUTS[int(rng.choice(len(HAIR_CUTS), p=weights))],
        bool(rng.random() < 0.5),
        ((62, 46, 40), (84, 62, 44), (70, 92, 112), (80, 100, 78))[int(rng.integers(4))],
        _mix(skin, (190, 62, 74), 0.62 if feminine else 0.34),
        feminine,
        float(rng.uniform(0.4, 1.0)),
        bool(not feminine and rng.random() < 0.25),
        bool(rng.random() < 0.12),
    )


def lay_flat() -> Figure:
    """The figure whose shape a garment keeps when it lies on a table: mean build, arms and legs a little apart."""
    build = Build()
    neck, pelvis = (0.0, NECK_Y), (0.0, PELVIS_Y)
    shoulders = _shoulders(build, neck, 0.0)
    elbows = _both(lambda side: _step(shoulders[side], UPPER_ARM, SIGNS[side] * 0.42))
    wrists = _both(lambda side: _step(elbows[side], FOREARM, SIGNS[side] * 0.34))
    hands = _both(lambda side: _step(wrists[side], HAND, SIGNS[side] * 0.34))
    hips = _both(lambda side: (SIGNS[side] * build.hip * 0.52, PELVIS_Y + 0.005))
    ankles = _both(lambda side: (SIGNS[side] * 0.082, ANKLE_Y))
    knees = _both(lambda side: _between(hips[side], ankles[side], 0.5))
    head = (0.0, NECK_Y - HEAD_RISE)
    return Figure(build, neck, pelvis, head, 0.0, shoulders, elbows, wrists, hands, hips, knees, ankles)


def _choose_figure(rng: np.random.Generator, feminine: bool) -> Figure:
    girth = rng.uniform(0.9, 1.13)
    build = Build(
        shoulder=(0.093 if feminine else 0.104) * (0.5 + 0.5 * girth) + rng.uniform(-0.003, 0.003),
        chest=(0.08 if feminine else 0.088) * girth,
        waist=(0.066 if feminine else 0.077) * girth + rng.uniform(-0.003, 0.003),
        hip=(0.091 if feminine else 0.086) * girth,
        limb=(0.94 if feminine else 1.08) * (0.4 + 0.6 * girth),
    )
    sway = rng.uniform(-0.012, 0.012)
    pelvis = (sway, PELVIS_Y)
    lean = rng.normal(0, 0.022)
    neck = (pelvis[0] + TORSO * float(np.sin(lean)), pelvis[1] - TORSO * float(np.cos(lean)))
    shoulders = _shoulders(build, neck, lean)
    arms = [_choose_arm(rng, shoulders[side], pelvis, build, side) for side in (RIGHT, LEFT)]
    elbows, wrists, hands = ((arms[0][joint], arms[1][joint]) for joint in range(3))
    hips = _both(lambda side: (pelvis[0] + SIGNS[side] * build.hip * 0.52, pelvis[1] + 0.005))
    stance = rng.uniform(0.042, 0.088) + 0.2 * (build.hip - 0.09)
    middle = 0.4 * sway + rng.uniform(-0.01, 0.01)
    ankles = _both(lambda side: (middle + SIGNS[side] * stance, ANKLE_Y))
    bends = rng.uniform(-0.006, 0.012, 2)
    knees = _both(lambda side: _bent(_between(hips[side], ankles[side], 0.5), SIGNS[side] * float(bends[side])))
    tilt = float(np.clip(rng.normal(0, 0.05), -0.13, 0.13)) + 0.5 * lean
    head = (neck[0] + HEAD_RISE * float(np.sin(tilt)), neck[1] - HEAD_RISE * float(np.cos(tilt)))
    return Figure(build, neck, pelvis, head, tilt, shoulders, elbows, wrists, hands, hips, knees, ankles)


def _choose_arm(
    rng: np.random.Generator, shoulder: Point, pelvis: Point, build: Build, side: int
) -> tuple[Point, Point, Point]:
    """Elbow, wrist and fingertip of one arm; angles count from straight down, outwards."""
    sign = SIGNS[side]
    kind = int(rng.choice(4, p=[0.5, 0.2, 0.2, 0.1]))
    if kind == 2:
        wrist = (pelvis[0] + sign * (build.hip + 0.022), pelvis[1] - rng.uniform(0.05, 0.075))
        elbow = _elbow_between(shoulder, wrist, sign)
        return elbow, wrist, _step(wrist, HAND * 0.8, sign * -0.35)
    first, second = (
        (rng.uniform(0.2, 0.34), rng.uniform(-0.12, 0.1)),
        (rng.uniform(0.32, 0.6), rng.uniform(-0.1, 0.35)),
        (0.0, 0.0),
        (rng.uniform(0.3, 0.5), rng.uniform(1.9, 2.3) if rng.random() < 0.5 else rng.uniform(0.3, 0.6)),
    )[kind]
    elbow = _step(shoulder, UPPER_ARM, sign * first)
    wrist = _step(elbow, FOREARM, sign * (first + second))
    return elbow, wrist, _step(wrist, HAND, sign * (first + second + rng.uniform(-0.15, 0.1)))


def _elbow_between(shoulder: Point, wrist: Point, sign: float) -> Point:
    """The elbow, out to the side, of an arm whose ends are given (law of cosines)."""
    start, stop = np.array(shoulder), np.array(wrist)
    reach = min(float(np.hypot(*(stop - start))), (UPPER_ARM + FOREARM) * 0.995)
    along = (stop - start) / np.hypot(*(stop - start))
    place = (UPPER_ARM**2 - FOREARM**2 + reach**2) / (2 * reach)
    out = float(np.sqrt(max(UPPER_ARM**2 - place**2, 0.0)))
    normal = np.array([along[1], -along[0]]) * sign
    x, y = start + along * place + normal * out
    return float(x), float(y)


def _shoulders(build: Build, neck: Point, lean: float) -> tuple[Point, Point]:
    cos, sin = float(np.cos(lean)), float(np.sin(lean))
    return _both(
        lambda side: (
            neck[0] + SIGNS[side] * (build.shoulder - 0.006) * cos - SHOULDER_V * sin,
            neck[1] + SIGNS[side] * (build.shoulder - 0.006) * sin + SHOULDER_V * cos,
        )
    )


def _both(place: Callable[[int], Point]) -> tuple[Point, Point]:
    return place(RIGHT), place(LEFT)


def _step(start: Point, length: float, angle: float) -> Point:
    return start[0] + length * float(np.sin(angle)), start[1] + length * float(np.cos(angle))


def _between(start: Point, stop: Point, share: float) -> Point:
    return start[0] + (stop[0] - start[0]) * share, start[1] + (stop[1] - start[1]) * share


def _bent(point: Point, shift: float) -> Point:
    return point[0] + shift, point[1]


def _mix(first: Sequence[float], second: Sequence[float], share: float) -> Colour:
    red, green, blue = (float(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _jitter(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    red, green, blue = (float(np.clip(channel + rng.normal(0, spread), 8, 248)) for channel in colour)
    return red, green, blue
