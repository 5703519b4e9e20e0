"""Painting a person without clothes: labels of the body, skin, face, hair, and the room around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastfit_watch.mini.drawing.body import Person
from fastfit_watch.mini.drawing.canvas import Canvas, Paint, Points, Values, ellipse, flat, limb, smooth, smooth_open
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
        # Each depends on one direction alone, so that a row and a column of values are enough.
        across, down = np.exp(-((x[:1] * 1.1) ** 2) * 1.5), np.exp(-((y[:, :1] - 0.4) ** 2) * 1.5)
        mix = np.clip((y[:, :1] - line) / 0.03, 0, 1)[..., None]
        tone = (np.float32(0.93) + np.float32(0.09) * (across * down))[..., None]
        return np.asarray(np.clip((base * (1 - mix) + floor * mix) * tone, 0, 255), np.float32)

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
        tone = 1.02 - 0.14 * np.clip(np.abs(u) / radius, 0, 1.2) ** 2
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
    labels = {"lip": 13, "atr": 11}
    canvas.fill(torso_outline(person.joints, person.build * 0.95, 0.51), flat(person.skin), labels)
    x = float(person.at("head")[0])
    side = smooth_open(np.array([(-0.029, 0.11), (-0.028, 0.15), (-0.036, 0.172), (-0.062, 0.184)]))
    shift = np.clip((0.18 - side[:, 1]) / 0.07, 0, 1) * x * 0.7
    neck = np.vstack([side + np.stack([shift, 0 * shift], 1), (side * (-1, 1) + np.stack([shift, 0 * shift], 1))[::-1]])
    canvas.fill(neck, flat(person.skin), labels)
    shadow = np.array([(-0.028, 0.125), (0.028, 0.125), (0.02, 0.154), (-0.016, 0.158)]) + (x * 0.6, 0)
    canvas.fill(smooth(shadow, 2), flat(person.shadow))


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
    """One hand, over whatever it touches: palm, four fingers and a thumb on the side of the body."""
    labels = {"lip": ARM_LABELS[side], "atr": ARM_LABELS[side], "worn": 0}
    wrist = person.at(f"{side}_wrist")
    along = (person.at(f"{side}_hand") - wrist) / np.linalg.norm(person.at(f"{side}_hand") - wrist)
    across = np.array([along[1], -along[0]]) * (1.0 if side == "right" else -1.0)
    skin, line = flat(person.skin), shade(person.skin, 0.72)
    palm = wrist + 0.024 * along
    thumb = (wrist + 0.012 * along + 0.012 * across, wrist + 0.036 * along + 0.024 * across)
    canvas.fill(limb(*thumb, 0.0072, 0.0052), skin, labels)
    for place, length in ((0.0112, 0.034), (0.0038, 0.039), (-0.0036, 0.036), (-0.0104, 0.029)):
        root = palm + place * across
        canvas.fill(limb(root, root + length * along + 0.12 * place * across, 0.0050, 0.0042), skin, labels)
    canvas.fill(limb(wrist, palm, 0.0165, 0.0165), skin, labels)
    for place in (0.0078, 0.0004, -0.007):
        root = palm + place * across + 0.012 * along
        canvas.stroke(np.stack([root, root + 0.025 * along]), 0.0022, line, 0.7)
    canvas.stroke(np.stack([thumb[0] + 0.012 * along, palm + 0.0165 * across + 0.006 * along]), 0.0022, line, 0.7)


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
    elif person.hair_style == "ponytail":
        tail = [(0.03, -0.05), (0.07, -0.02), (0.085, 0.08), (0.07, 0.16), (0.05, 0.09), (0.03, 0.02)]
        canvas.fill(smooth(np.array(tail) + (x, y), 2), tone, labels)
    elif person.hair_style == "afro":
        canvas.fill(ellipse((x, y - 0.018), (0.086, 0.08)), tone, labels)
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
        eye = (x + sign * 0.0185, y + 0.004)
        canvas.fill(ellipse(eye, (0.0085, 0.0056)), flat((250, 248, 245)))
        canvas.fill(ellipse(eye, (0.0052, 0.0056)), flat((52, 38, 34)))
        canvas.fill(ellipse((eye[0] + 0.0018, eye[1] - 0.0018), (0.0015, 0.0015)), flat((255, 255, 255)))
        canvas.stroke(ellipse(eye, (0.0088, 0.006), 195, 345), 0.0022, (46, 34, 32), 0.8)
        brow = ellipse((x + sign * 0.0185, y - 0.007), (0.0115, 0.006), 205, 335)
        tone = shade(person.hair, 0.75) if person.hair_style != "bald" else (70, 52, 44)
        canvas.stroke(brow, 0.0028, tone, 0.75)
    nose = np.array([(x - 0.002, y + 0.008), (x + 0.0045, y + 0.024), (x - 0.004, y + 0.026)])
    canvas.stroke(nose, 0.0026, shade(person.skin, 0.74), 0.8)
    smile = np.array(
        [(-0.016, 0.0405), (-0.005, 0.0395), (0.0, 0.041), (0.005, 0.0395), (0.016, 0.0405), (0.0, 0.0515)]
    )
    canvas.fill(smooth(smile + (x, y), 2), flat(person.lips))
    canvas.stroke(ellipse((x, y + 0.032), (0.02, 0.0125), 40, 140), 0.002, shade(person.lips, 0.6), 0.8)
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
