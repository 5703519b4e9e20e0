"""Painting a person without clothes: labels of the body, skin, face, hair, and the room around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastfit_watch.mini.drawing.body import Person
from fastfit_watch.mini.drawing.canvas import Canvas, Paint, Points, Values, ellipse, flat, limb, smooth
from fastfit_watch.mini.drawing.fabric import shade
from fastfit_watch.mini.drawing.wardrobe import torso_outline

# Label ids: FastFit inference specification, section 4.1; DensePose ids are those of a body seen from the front.
ARM_LABELS = {"right": 15, "left": 14}
LEG_LABELS = {"right": 17, "left": 16}
ATR_LEGS = {"right": 13, "left": 12}
PARTS = {
    "right": {"hand": 3, "foot": 6, "thigh": 9, "calf": 13, "upper": 17, "fore": 21},
    "left": {"hand": 4, "foot": 5, "thigh": 10, "calf": 14, "upper": 18, "fore": 22},
}


def draw_wall(canvas: Canvas, wall: int) -> None:
    """A calm wall, a floor, and the shadow of the feet."""
    rng = np.random.default_rng(wall)
    hue = rng.uniform(0, 1)
    base = np.float32(226 + 16 * np.cos(2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3]))) - rng.uniform(0, 26))
    floor = base * np.float32(rng.uniform(0.8, 0.93))
    line = float(rng.uniform(0.84, 0.92))

    def paint(x: Values, y: Values) -> Values:
        glow = np.exp(-((x * 1.1) ** 2 + (y - 0.4) ** 2) * 1.5)[..., None].astype(np.float32)
        mix = np.clip((y - line) / 0.03, 0, 1)[..., None]
        return np.asarray(np.clip((base * (1 - mix) + floor * mix) * (0.93 + 0.09 * glow), 0, 255), np.float32)

    canvas.cover(paint)
    for size, share in ((1.0, 0.16), (0.8, 0.2), (0.6, 0.2)):
        canvas.fill(ellipse((0.0, 0.985), (0.17 * size, 0.022 * size)), flat((40, 36, 40)), opacity=share)


def mark_body(canvas: Canvas, person: Person) -> None:
    """DensePose labels: the body under its clothes."""
    b = person.build

    def mark(outline: Points, part: int) -> None:
        canvas.fill(outline, flat((0, 0, 0)), {"densepose": part}, 0)

    for side, part in PARTS.items():
        at = person.side(side)
        mark(limb(at("ankle"), at("toe"), 0.024, 0.024), part["foot"])
        mark(limb(at("knee"), at("ankle"), 0.040 * b, 0.024 * b), part["calf"])
        mark(limb(at("hip") + (0, 0.02), at("knee"), 0.052 * b, 0.041 * b), part["thigh"])
    mark(torso_outline(person.joints, b, 0.535), 2)
    for side, part in PARTS.items():
        at = person.side(side)
        mark(limb(at("shoulder") + (0, 0.012), at("elbow"), 0.034 * b, 0.029 * b), part["upper"])
        mark(limb(at("elbow"), at("wrist"), 0.029 * b, 0.021 * b), part["fore"])
        mark(limb(at("wrist"), at("hand"), 0.024, 0.018), part["hand"])
    head = ellipse(person.at("head"), (0.05, 0.068))
    mark(head, 23)
    half = head[(head[:, 0] >= person.at("head")[0])]
    order = np.argsort(half[:, 1])
    mark(np.vstack([half[order], [[person.at("head")[0], 0.136], [person.at("head")[0], 0.0]]]), 24)


def skin_tube(person: Person, start: Points, end: Points, radius: float) -> Paint:
    """Skin around a limb, darker towards its sides."""
    direction = (end - start) / np.linalg.norm(end - start)

    def paint(x: Values, y: Values) -> Values:
        u = (y - np.float32(start[1])) * direction[0] - (x - np.float32(start[0])) * direction[1]
        tone = 1.02 - 0.2 * np.clip(np.abs(u) / radius, 0, 1.2) ** 2
        return np.asarray(np.clip(np.asarray(person.skin, np.float32) * tone[..., None], 0, 255), np.float32)

    return paint


def draw_legs(canvas: Canvas, person: Person) -> None:
    """Bare legs and feet."""
    b = person.build
    for side in ("right", "left"):
        labels = {"lip": LEG_LABELS[side], "atr": ATR_LEGS[side]}
        at = person.side(side)
        canvas.fill(limb(at("ankle"), at("toe"), 0.024, 0.022), flat(person.shadow), labels)
        canvas.fill(
            limb(at("hip") + (0, 0.03), at("knee"), 0.044 * b, 0.036 * b),
            skin_tube(person, at("hip"), at("knee"), 0.058 * b),
            labels,
        )
        canvas.fill(
            limb(at("knee"), at("ankle"), 0.034 * b, 0.021 * b),
            skin_tube(person, at("knee"), at("ankle"), 0.04 * b),
            labels,
        )


def draw_trunk(canvas: Canvas, person: Person) -> None:
    """Bare chest and neck."""
    canvas.fill(torso_outline(person.joints, person.build * 0.95, 0.51), flat(person.skin), {"lip": 13, "atr": 11})
    neck = np.array([(-0.026, 0.11), (0.026, 0.11), (0.032, 0.18), (-0.032, 0.18)]) + (person.at("head")[0] * 0.5, 0)
    canvas.fill(neck, flat(person.shadow), {"lip": 13, "atr": 11})


def draw_arm(canvas: Canvas, person: Person, side: str) -> None:
    """One bare arm."""
    b, at = person.build, person.side(side)
    label = ARM_LABELS[side]
    labels = {"lip": label, "atr": label, "worn": 0}
    canvas.fill(
        limb(at("elbow"), at("wrist"), 0.027 * b, 0.019 * b),
        skin_tube(person, at("elbow"), at("wrist"), 0.033 * b),
        labels,
    )
    canvas.fill(
        limb(at("shoulder") + ((0.012 if side == "right" else -0.012), 0.016), at("elbow"), 0.030 * b, 0.026 * b),
        skin_tube(person, at("shoulder"), at("elbow"), 0.042 * b),
        labels,
    )


def draw_hand(canvas: Canvas, person: Person, side: str) -> None:
    """One hand, over whatever it touches."""
    label = ARM_LABELS[side]
    hand = limb(
        person.at(f"{side}_wrist"), person.at(f"{side}_hand") * 0.85 + person.at(f"{side}_wrist") * 0.15, 0.020, 0.016
    )
    canvas.fill(hand, flat(person.skin), {"lip": label, "atr": label, "worn": 0})
    canvas.stroke(np.vstack([hand, hand[:1]]), 0.003, person.shadow, 0.6)


def draw_hair_back(canvas: Canvas, person: Person) -> None:
    """Hair behind the head."""
    x, y = person.at("head")
    labels = {"lip": 2, "atr": 2}
    tone = flat(shade(person.hair, 0.85))
    if person.hair_style == "long":
        canvas.fill(
            smooth(
                np.array([(-0.062, 0.0), (0.062, 0.0), (0.08, 0.13), (0.07, 0.2), (-0.07, 0.2), (-0.08, 0.13)])
                + (x, y),
                2,
            ),
            tone,
            labels,
        )
    elif person.hair_style in ("bob", "side"):
        canvas.fill(
            smooth(np.array([(-0.066, -0.03), (0.066, -0.03), (0.076, 0.07), (-0.076, 0.07)]) + (x, y), 2), tone, labels
        )
    elif person.hair_style == "bun":
        canvas.fill(ellipse((x, y - 0.07), (0.03, 0.028)), flat(person.hair), labels)
    elif person.hair_style == "curly":
        for angle in np.linspace(160, 380, 10):
            canvas.fill(
                ellipse(
                    (x + 0.055 * np.cos(np.radians(angle)), y - 0.01 + 0.06 * np.sin(np.radians(angle))), (0.03, 0.03)
                ),
                tone,
                labels,
            )


def draw_head(canvas: Canvas, person: Person) -> None:
    """Head, face and the hair in front."""
    x, y = person.at("head")
    face, hair = {"lip": 13, "atr": 11, "worn": 0}, {"lip": 2, "atr": 2, "worn": 0}
    for sign in (-1, 1):
        canvas.fill(ellipse((x + sign * 0.047, y + 0.008), (0.010, 0.016)), flat(person.shadow), face)
    outline = smooth(
        np.array(
            [
                (-0.046, -0.04),
                (-0.02, -0.064),
                (0.02, -0.064),
                (0.046, -0.04),
                (0.046, 0.015),
                (0.03, 0.055),
                (0.0, 0.074),
                (-0.03, 0.055),
                (-0.046, 0.015),
            ]
        )
        + (x, y),
        2,
    )
    canvas.fill(outline, flat(person.skin), face)
    for sign in (-1, 1):
        canvas.fill(ellipse((x + sign * 0.026, y + 0.026), (0.012, 0.008)), flat((226, 120, 108)), None, 0.25)
        canvas.fill(ellipse((x + sign * 0.0185, y + 0.004), (0.0078, 0.0052)), flat((250, 248, 245)))
        canvas.fill(ellipse((x + sign * 0.0185, y + 0.0042), (0.0046, 0.005)), flat((52, 38, 34)))
        brow = ellipse((x + sign * 0.0185, y - 0.006), (0.012, 0.007), 200, 340)
        canvas.stroke(brow, 0.0034, shade(person.hair, 0.7) if person.hair_style != "bald" else (70, 52, 44))
    canvas.stroke(
        np.array([(x, y + 0.006), (x + 0.005, y + 0.024), (x - 0.003, y + 0.026)]), 0.0032, shade(person.skin, 0.72)
    )
    canvas.fill(ellipse((x, y + 0.043), (0.0135, 0.0055)), flat(person.lips))
    if person.hair_style == "bald":
        return
    caps = {
        "short": [
            (-0.052, -0.012),
            (-0.05, -0.05),
            (-0.02, -0.078),
            (0.024, -0.078),
            (0.052, -0.05),
            (0.052, -0.012),
            (0.042, -0.034),
            (0.0, -0.042),
            (-0.04, -0.034),
        ],
        "side": [
            (-0.056, 0.03),
            (-0.056, -0.05),
            (-0.02, -0.08),
            (0.03, -0.078),
            (0.056, -0.045),
            (0.054, 0.0),
            (0.044, -0.03),
            (-0.01, -0.048),
            (-0.044, -0.02),
        ],
        "curly": [
            (-0.056, 0.0),
            (-0.056, -0.05),
            (-0.02, -0.084),
            (0.02, -0.084),
            (0.056, -0.05),
            (0.056, 0.0),
            (0.03, -0.04),
            (0.0, -0.034),
            (-0.03, -0.04),
        ],
    }
    round_cap = [
        (-0.058, 0.04),
        (-0.058, -0.045),
        (-0.024, -0.078),
        (0.024, -0.078),
        (0.058, -0.045),
        (0.058, 0.04),
        (0.044, -0.01),
        (0.02, -0.042),
        (-0.012, -0.046),
        (-0.044, -0.01),
    ]
    cap = smooth(np.array(caps.get(person.hair_style, round_cap)) + (x, y), 2)
    canvas.fill(cap, flat(person.hair), hair)
    canvas.stroke(
        np.array([(x - 0.034, y - 0.05), (x - 0.005, y - 0.068), (x + 0.03, y - 0.062)]),
        0.006,
        shade(person.hair, 1.35),
        0.45,
    )


def body_points(person: Person, canvas: Canvas) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The 18 body points in OpenPose order, and no face or hand points."""
    x, y = person.at("head")
    paths = [(x, y + 0.02), person.at("neck") + (0, 0.02)]
    paths += [person.at(f"{s}_{j}") for s in ("right", "left") for j in ("shoulder", "elbow", "wrist")]
    paths += [person.at(f"{s}_{j}") for s in ("right", "left") for j in ("hip", "knee", "ankle")]
    paths += [(x - 0.0185, y + 0.004), (x + 0.0185, y + 0.004), (x - 0.047, y + 0.008), (x + 0.047, y + 0.008)]
    points, scores = np.full((134, 2), -1, np.float32), np.zeros(134, np.float32)
    points[:18], scores[:18] = canvas.to_pixels(np.array(paths)), 1
    return points, scores
