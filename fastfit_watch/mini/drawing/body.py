"""People: proportions, pose, skin and hair, drawn from a seed. Lengths in person heights (see canvas)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastfit_watch.mini.drawing.canvas import Points
from fastfit_watch.mini.drawing.fabric import Colour, shade

SKINS: tuple[Colour, ...] = (
    (250, 221, 200),
    (240, 200, 172),
    (222, 172, 136),
    (192, 138, 100),
    (150, 100, 68),
    (106, 70, 50),
    (74, 50, 38),
)
HAIRS: tuple[Colour, ...] = (
    (36, 30, 30),
    (66, 44, 34),
    (112, 74, 46),
    (160, 110, 62),
    (214, 172, 104),
    (164, 72, 42),
    (150, 150, 154),
    (228, 222, 212),
)
HAIR_STYLES = ("short", "bob", "long", "bun", "curly", "bald", "side", "ponytail", "afro")


@dataclass(frozen=True)
class Person:
    """One person in one pose. `joints` maps a name to (x, y); sides are the person's own (right = picture left)."""

    skin: Colour
    hair: Colour
    hair_style: str
    lips: Colour
    build: float
    joints: dict[str, Points]

    def at(self, name: str) -> Points:
        """Where a joint is."""
        return self.joints[name]

    def side(self, side: str) -> Callable[[str], Points]:
        """Where the joints of one side are, by their short names."""
        return lambda joint: self.joints[f"{side}_{joint}"]

    @property
    def shadow(self) -> Colour:
        """The skin's darker tone."""
        return shade(self.skin, 0.86)


def draw_person_traits(rng: np.random.Generator) -> Person:
    """A random person."""
    build = float(rng.uniform(0.88, 1.16))
    joints = draw_pose(rng, build)
    skin = SKINS[int(rng.integers(len(SKINS)))]
    hair = HAIRS[int(rng.integers(len(HAIRS)))]
    style = str(rng.choice(HAIR_STYLES, p=(0.18, 0.14, 0.17, 0.11, 0.1, 0.06, 0.08, 0.09, 0.07)))
    lips = tuple(0.55 * part + 0.45 * tone for part, tone in zip(skin, (176, 62, 66), strict=True))
    return Person(skin, hair, style, lips, build, joints)  # type: ignore[arg-type]


def draw_pose(rng: np.random.Generator, build: float) -> dict[str, Points]:
    """Joints of a standing figure: head top at (0, 0), soles near y = 1."""
    lean = float(rng.uniform(-0.016, 0.016))
    shoulder, hip = 0.098 * build, 0.058 * build
    spread = float(rng.uniform(0.0, 0.055))
    tilt = float(rng.uniform(-0.008, 0.008))
    joints: dict[str, Points] = {
        "head": np.array([tilt, 0.068]),
        "neck": np.array([0.0, 0.168]),
        "pelvis": np.array([lean, 0.505]),
    }
    for side, sign in (("right", -1.0), ("left", 1.0)):
        top = np.array([sign * shoulder, 0.192 + float(rng.uniform(-0.004, 0.004))])
        joints[f"{side}_shoulder"] = top
        pick = rng.random()
        if pick < 0.14:  # hand on the hip
            elbow = top + np.array([sign * 0.105, 0.135])
            wrist = np.array([lean + sign * (hip + 0.042), 0.42])
        else:  # hanging, or in front of the body
            upper = float(rng.uniform(0.14, 0.46))
            lower = float(rng.uniform(-0.75, -0.2) if pick < 0.28 else rng.uniform(-0.05, 0.34))
            elbow = top + 0.165 * np.array([sign * np.sin(upper), np.cos(upper)])
            wrist = elbow + 0.145 * np.array([sign * np.sin(lower), np.cos(lower)])
        joints[f"{side}_elbow"], joints[f"{side}_wrist"] = elbow, wrist
        along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        joints[f"{side}_hand"] = wrist + 0.05 * along
        base = np.array([lean + sign * hip, 0.52])
        ankle = np.array([sign * (0.045 * build + spread), 0.945])
        joints[f"{side}_hip"], joints[f"{side}_ankle"] = base, ankle
        joints[f"{side}_knee"] = 0.5 * (base + ankle) + np.array([sign * float(rng.uniform(-0.004, 0.014)), 0.0])
        joints[f"{side}_toe"] = ankle + np.array([sign * 0.022, 0.034])
    return joints


def flat_pose() -> dict[str, Points]:
    """The pose of a flat-lay: arms a little out, legs a little apart."""
    joints = draw_pose(np.random.default_rng(3), 1.0)
    joints |= {"pelvis": np.array([0.0, 0.505]), "head": np.array([0.0, 0.068])}
    for side, sign in (("right", -1.0), ("left", 1.0)):
        top = np.array([sign * 0.098, 0.192])
        elbow = top + 0.165 * np.array([sign * np.sin(0.5), np.cos(0.5)])
        wrist = elbow + 0.145 * np.array([sign * np.sin(0.4), np.cos(0.4)])
        joints |= {f"{side}_shoulder": top, f"{side}_elbow": elbow, f"{side}_wrist": wrist}
        base, ankle = np.array([sign * 0.058, 0.52]), np.array([sign * 0.075, 0.945])
        joints |= {f"{side}_hip": base, f"{side}_ankle": ankle, f"{side}_knee": 0.5 * (base + ankle)}
    return joints
