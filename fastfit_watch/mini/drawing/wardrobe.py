"""Garments: what they are, drawn from a seed, and how they lie on a pose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.drawing.canvas import Canvas, Paint, Points, Values, ellipse, flat, limb, smooth, smooth_open
from fastfit_watch.mini.drawing.fabric import Colour, Fabric, draw_colour, draw_fabric, shade, weave

Labels = Mapping[str, int]
Pose = Mapping[str, Points]
SIDES = (("right", -1.0), ("left", 1.0))
_LOOSE = ("knit", "shirt", "jacket")


@dataclass(frozen=True)
class Garment:
    """One garment. kind: its cut. sleeve: share of the arm covered. hem: its y. flare: widening. neck: opening."""

    category: Category
    kind: str
    fabric: Fabric
    trim: Colour
    sleeve: float = 0.0
    hem: float = 0.0
    flare: float = 0.0
    neck: str = "crew"


def draw_garment_traits(rng: np.random.Generator, category: Category) -> Garment:
    """A random garment of a category."""
    trim, collarless = draw_colour(rng), str(rng.choice(["crew", "vee", "scoop"]))
    match category:
        case Category.UPPER:
            kind = str(rng.choice(["tee", "shirt", "knit", "tank", "jacket"], p=[0.28, 0.22, 0.2, 0.12, 0.18]))
            sleeve = {
                "tee": rng.uniform(0.24, 0.5),
                "shirt": rng.choice([rng.uniform(0.36, 0.48), rng.uniform(0.66, 0.8), 0.98]),
                "knit": rng.choice([rng.uniform(0.7, 0.85), 0.98]),
                "tank": 0.0,
                "jacket": rng.choice([rng.uniform(0.7, 0.85), 0.98]),
            }[kind]
            neck = {"shirt": "collar", "jacket": "lapels"}.get(kind, collarless)
            hem = rng.uniform(0.49, 0.56)
            return Garment(category, kind, draw_fabric(rng), trim, float(sleeve), float(hem), 0.0, neck)
        case Category.LOWER:
            kind = str(rng.choice(["trousers", "shorts", "skirt"], p=[0.5, 0.2, 0.3]))
            hem = {
                "trousers": rng.uniform(0.84, 0.94),
                "shorts": rng.uniform(0.62, 0.74),
                "skirt": rng.uniform(0.62, 0.88),
            }[kind]
            return Garment(category, kind, draw_fabric(rng), trim, 0.0, float(hem), float(rng.uniform(0.0, 0.07)))
        case Category.DRESS:
            sleeve = rng.choice([0.0, rng.uniform(0.25, 0.5), rng.uniform(0.7, 0.98)], p=[0.4, 0.35, 0.25])
            hem, flare = float(rng.uniform(0.62, 0.92)), float(rng.uniform(0.02, 0.09))
            return Garment(category, "dress", draw_fabric(rng), trim, float(sleeve), hem, flare, collarless)
        case Category.SHOE:
            kind = str(rng.choice(["sneaker", "boot", "pump"]))
            return Garment(category, kind, draw_fabric(rng, plain=True), trim)
        case Category.BAG:
            kind = str(rng.choice(["satchel", "round", "pouch"]))
            return Garment(category, kind, draw_fabric(rng, plain=bool(rng.random() < 0.6)), trim)


def dress_legs(canvas: Canvas, pose: Pose, build: float, lower: Garment, labels: Labels, skirt_labels: Labels) -> None:
    """Trousers, shorts or a skirt."""
    waist = pose["pelvis"] - (0.0, 0.065)
    half = 0.079 * build
    if lower.kind == "skirt":
        outline = _skirt_outline(pose, build, float(waist[1]), lower.hem, lower.flare)
        canvas.fill(outline, _sheet(lower.fabric, waist, half + lower.flare, folds=True), skirt_labels)
        _folds(canvas, pose, lower, float(waist[1]))
    else:
        for side, sign in SIDES:
            outline, hem = _leg_outline(pose, build, side, sign, lower)
            canvas.fill(outline, _tube(lower.fabric, pose[f"{side}_hip"], pose[f"{side}_ankle"], 0.085 * build), labels)
            canvas.stroke(hem - (0.0, 0.006), 0.004, shade(lower.fabric.base, 0.6), 0.5)
            knee = pose[f"{side}_knee"]
            if lower.hem > knee[1] + 0.05:
                for across, down in ((0.034, -0.012), (-0.03, 0.01)):
                    crease = knee + np.array(
                        [(sign * across * build, down), (sign * across * 0.3 * build, down + 0.014)]
                    )
                    canvas.stroke(crease, 0.005, shade(lower.fabric.base, 0.6), 0.3)
        crotch = pose["pelvis"] + (0.0, 0.05)
        canvas.stroke(np.stack([pose["pelvis"] - (0.0, 0.04), crotch]), 0.004, shade(lower.fabric.base, 0.6), 0.5)
    band = np.array([(-half, 0.0), (half, 0.0), (half * 1.04, 0.022), (-half * 1.04, 0.022)]) + waist
    canvas.fill(band, flat(shade(lower.fabric.base, 0.78)), skirt_labels if lower.kind == "skirt" else labels)


def _leg_outline(pose: Pose, build: float, side: str, sign: float, lower: Garment) -> tuple[Points, Points]:
    """One leg of trousers or shorts from the waist to the hem, and the two ends of its hem."""
    pelvis = pose["pelvis"]
    leg = (pose[f"{side}_hip"], pose[f"{side}_knee"], pose[f"{side}_ankle"])
    stop = _cut(leg, lower.hem)
    knee_half, ankle_half = 0.042 * build + 0.25 * lower.flare, 0.031 * build + 0.5 * lower.flare
    share = np.clip((lower.hem - leg[1][1]) / (leg[2][1] - leg[1][1]), 0.0, 1.0)
    hem_half = (
        knee_half + share * (ankle_half - knee_half) if lower.hem > leg[1][1] else 0.05 * build + 0.2 * lower.flare
    )
    outer = [
        pelvis + (sign * 0.079 * build, -0.065),
        pelvis + (sign * 0.094 * build, -0.02),
        pelvis + (sign * (0.103 * build + 0.1 * lower.flare), 0.04),
    ]
    inner = [pelvis + (sign * 0.006, 0.075), pelvis + (sign * 0.0, 0.05), pelvis + (0.0, -0.065)]
    if lower.hem > leg[1][1]:
        outer.append(leg[1] + (sign * knee_half, 0.0))
        inner.insert(0, leg[1] - (sign * knee_half * 0.9, 0.0))
    ends = [stop + (sign * hem_half, 0.0), stop - (sign * hem_half * 0.9, 0.0)]
    body = smooth_open(np.array([*outer, ends[0]]))
    return np.vstack([body, smooth_open(np.array([ends[1], *inner]))]), np.array(ends)


def dress_torso(canvas: Canvas, pose: Pose, build: float, top: Garment, labels: Labels) -> None:
    """The body of an upper garment or a dress, without its sleeves."""
    if top.category is Category.DRESS:
        outline = _skirt_outline(pose, build, 0.42, top.hem, top.flare)
        canvas.fill(outline, _sheet(top.fabric, pose["pelvis"], 0.1 * build + top.flare, folds=True), labels)
        _folds(canvas, pose, top, 0.45)
        bottom = 0.44
    else:
        bottom = top.hem
    outline = torso_outline(pose, build, bottom, wide=top.kind in _LOOSE)
    canvas.fill(outline, _sheet(top.fabric, pose["neck"], 0.11 * build), labels)
    low = shade(top.fabric.base, 0.7)
    middle, x = pose["pelvis"][0], pose["neck"][0]
    if top.category is Category.DRESS:
        belt = np.array([(-0.07, 0.418), (0.07, 0.418), (0.074, 0.442), (-0.074, 0.442)]) * (build, 1)
        canvas.fill(belt + (middle * 0.95, 0), flat(top.trim), labels)
    else:
        for sign in (-1.0, 1.0):  # where cloth is pulled at the waist
            crease = np.array([(sign * 0.07 * build, 0.40), (sign * 0.03 * build, 0.43)]) + (middle, 0)
            canvas.stroke(crease, 0.005, low, 0.3)
    if top.kind == "knit":
        hem = np.array([(-0.094, bottom - 0.022), (0.094, bottom - 0.022), (0.092, bottom), (-0.092, bottom)])
        canvas.fill(hem * (build, 1) + (middle, 0), flat(low), labels)
    elif top.kind == "shirt":
        canvas.stroke(np.array([(x, 0.2), (middle, bottom - 0.004)]), 0.004, low, 0.8)
        for y in np.arange(0.23, bottom - 0.02, 0.06):
            canvas.fill(ellipse((x + (middle - x) * (y - 0.2) / 0.3 + 0.007, float(y)), (0.006, 0.006)), flat(top.trim))
    elif top.kind == "jacket":
        front = np.array(
            [(-0.03, 0.186), (0.03, 0.186), (0.026, 0.3), (0.034, bottom + 0.002), (-0.034, bottom + 0.002)]
        )
        front = (
            np.vstack([front, [(-0.026, 0.3)]]) * (build, 1)
            + np.outer([0, 0, 0.4, 1, 1, 0.4], (middle - x, 0))
            + (x, 0)
        )
        canvas.fill(front, _sheet(replace(top.fabric, kind="plain", base=top.trim), pose["neck"], 0.16 * build), labels)
        for edge in (front[1:4], front[[0, 5, 4]]):
            canvas.stroke(edge, 0.005, low, 0.8)


def dress_arm(canvas: Canvas, pose: Pose, build: float, side: str, top: Garment, labels: Labels) -> None:
    """One sleeve."""
    if top.sleeve <= 0:
        return
    arm = (pose[f"{side}_shoulder"], pose[f"{side}_elbow"], pose[f"{side}_wrist"])
    loose = 1.2 if top.kind in _LOOSE else 1.08
    r0, r1, r2 = 0.034 * build * loose, 0.030 * build * loose, 0.024 * build * loose
    total = min(2.0, top.sleeve * 2)
    low = shade(top.fabric.base, 0.7)
    if total > 1:
        end = arm[1] + (arm[2] - arm[1]) * min(1.0, total - 1)
        canvas.fill(
            limb(arm[1], end, r1, r2, flat_end=True), _tube(top.fabric, arm[1], arm[2], r1, along=0.165), labels
        )
        cuff = arm[1] + (arm[2] - arm[1]) * max(0.0, total - 1 - 0.12)
        canvas.fill(limb(cuff, end, r2 * 1.04, r2 * 1.04, flat_end=True), flat(shade(top.fabric.base, 0.78)), labels)
    end = arm[0] + (arm[1] - arm[0]) * min(1.0, total)
    inner = arm[0] + (-0.012 if arm[0][0] > 0 else 0.012, 0.024)
    width = r0 + (r1 - r0) * min(1.0, total)
    canvas.fill(limb(inner, end, r0, width, flat_end=total <= 1), _tube(top.fabric, arm[0], arm[1], r0), labels)
    across = np.array([arm[1][1] - arm[0][1], arm[0][0] - arm[1][0]]) / np.linalg.norm(arm[1] - arm[0])
    if total <= 1:
        hem = end - 0.006 * (arm[1] - arm[0]) / np.linalg.norm(arm[1] - arm[0])
        canvas.stroke(np.stack([hem + across * width * 0.9, hem - across * width * 0.9]), 0.004, low, 0.6)
    elif total > 1.3:  # folds in the bend
        canvas.stroke(np.stack([arm[1] + across * r1 * 0.8, arm[1] + across * r1 * 0.1]), 0.005, low, 0.4)


def trim_neck(
    canvas: Canvas, pose: Pose, top: Garment, inside: Colour, labels: Labels, *, is_worn: bool = True
) -> None:
    """The neck opening with a trim around it. inside: the colour of what shows in it, up to the neck if it is worn."""
    x, y = pose["neck"][0], 0.186
    shapes = {
        "crew": ellipse((x, y - 0.012), (0.043, 0.022), 0, 180),
        "scoop": ellipse((x, y - 0.012), (0.052, 0.054), 0, 180),
        "vee": np.array([(x + 0.044, y - 0.012), (x, y + 0.062), (x - 0.044, y - 0.012)]),
        "collar": np.array([(x + 0.038, y - 0.012), (x, y + 0.03), (x - 0.038, y - 0.012)]),
        "lapels": ellipse((x, y - 0.012), (0.04, 0.024), 0, 180),
    }
    edge = shapes[top.neck]
    neck = [(x - 0.036, y - 0.022), (x - 0.03, y - 0.034), (x + 0.03, y - 0.034), (x + 0.036, y - 0.022)]
    canvas.fill(np.vstack([edge, neck]) if is_worn else edge, flat(inside), labels)
    if top.neck in ("crew", "scoop", "vee"):
        canvas.stroke(edge, 0.008, top.trim)
        return
    reach, tip = (0.034, 0.05) if top.neck == "collar" else (0.1, 0.052)
    for sign in (-1.0, 1.0):
        flap = np.array(
            [
                (x + sign * 0.038, y - 0.017),
                (x + sign * (0.004 if top.neck == "collar" else 0.028), y + reach),
                (x + sign * tip, y + 0.75 * reach),
                (x + sign * 0.056, y + 0.004),
            ]
        )
        canvas.fill(flap, flat(shade(top.fabric.base, 1.1)))
        canvas.stroke(np.vstack([flap, flap[:1]]), 0.003, shade(top.fabric.base, 0.65), 0.8)


def put_on_shoe(canvas: Canvas, pose: Pose, side: str, shoe: Garment, labels: Labels) -> None:
    """One shoe, seen from the front."""
    ankle, toe = pose[f"{side}_ankle"], pose[f"{side}_toe"]
    sign = -1.0 if side == "right" else 1.0
    body = smooth(
        np.array(
            [
                ankle + (-0.03, -0.004),
                ankle + (0.03, -0.004),
                toe + (0.032 + 0.008 * sign, 0.004),
                toe + (0.03 + 0.008 * sign, 0.02),
                toe + (-0.03 + 0.008 * sign, 0.02),
                toe + (-0.032 + 0.008 * sign, 0.004),
            ]
        ),
        2,
    )
    colour = shoe.fabric.base
    if shoe.kind == "boot":
        shaft = limb(ankle - (0.0, 0.1), ankle + (0.0, 0.01), 0.034, 0.033)
        canvas.fill(shaft, _tube(shoe.fabric, ankle - (0.0, 0.1), ankle, 0.036), labels)
    canvas.fill(body, _sheet(shoe.fabric, toe, 0.05), labels)
    if shoe.kind == "sneaker":
        sole = np.array(
            [
                toe + (-0.034 + 0.008 * sign, 0.011),
                toe + (0.034 + 0.008 * sign, 0.011),
                toe + (0.032 + 0.008 * sign, 0.022),
                toe + (-0.032 + 0.008 * sign, 0.022),
            ]
        )
        canvas.fill(sole, flat((244, 242, 238)), labels)
        for step in (0.004, 0.014):
            canvas.stroke(np.stack([ankle + (-0.014, step), ankle + (0.014, step)]), 0.005, shoe.fabric.accent)
    elif shoe.kind == "pump":
        canvas.stroke(
            np.stack([toe + (-0.024 + 0.008 * sign, 0.018), toe + (0.026 + 0.008 * sign, 0.018)]),
            0.006,
            shade(colour, 0.55),
        )
    else:
        canvas.stroke(
            np.stack([toe + (-0.03 + 0.008 * sign, 0.018), toe + (0.03 + 0.008 * sign, 0.018)]),
            0.008,
            shade(colour, 0.5),
        )


def hang_bag(canvas: Canvas, shoulder: Points, centre: Points, bag: Garment, labels: Labels) -> None:
    """A strap over the shoulder and the bag at the hip."""
    canvas.fill(limb(shoulder, centre - (0.0, 0.05), 0.008, 0.008), flat(shade(bag.fabric.base, 0.7)), labels)
    shapes = {
        "satchel": np.array([(-0.062, -0.045), (0.062, -0.045), (0.068, 0.05), (-0.068, 0.05)]),
        "pouch": np.array([(-0.045, -0.045), (0.045, -0.045), (0.075, 0.055), (-0.075, 0.055)]),
        "round": ellipse((0, 0), (0.06, 0.058)),
    }
    body = smooth(shapes[bag.kind], 2) * 1.08 + centre
    canvas.fill(body, _sheet(bag.fabric, centre, 0.08), labels)
    canvas.stroke(np.vstack([body, body[:1]]), 0.004, shade(bag.fabric.base, 0.55), 0.7)
    if bag.kind == "satchel":
        flap = smooth(np.array([(-0.062, -0.045), (0.062, -0.045), (0.055, 0.008), (-0.055, 0.008)]) * 1.08 + centre, 1)
        canvas.fill(flap, flat(shade(bag.fabric.base, 0.85)), labels)
    canvas.fill(ellipse(centre + (0.0, 0.006), (0.01, 0.01)), flat((226, 196, 120)), labels)


def torso_outline(pose: Pose, build: float, bottom: float, wide: bool = False) -> Points:
    """Outline of the trunk from the shoulders to `bottom` (y)."""
    neck, shift = float(pose["neck"][0]), float(pose["pelvis"][0])
    room = 1.07 if wide else 1.0
    waist = 0.074 if not wide else 0.084
    hip = waist + (0.092 - waist) * float(np.clip((bottom - 0.41) / 0.09, 0, 1))
    left = [
        (0.0, 0.172),
        (-0.036, 0.165),
        (-0.064, 0.177),
        (-0.098, 0.186),
        (-0.112, 0.204),
        (-0.104, 0.25),
        (-0.09 * room, 0.30),
        (-waist * room, 0.41),
        (-0.5 * (waist + hip) * room, min(bottom, 0.5) - 0.01),
        (-hip * room, bottom - 0.004),
        (-0.97 * hip * room, bottom),
    ]
    right = [(-x, y) for x, y in reversed(left[1:])]
    points = np.array(left + right) * (build, 1)
    points[:, 0] += neck + (shift - neck) * np.clip((points[:, 1] - 0.2) / 0.3, 0, 1)
    return smooth(points, 1)


def _skirt_outline(pose: Pose, build: float, top: float, hem: float, flare: float) -> Points:
    middle = float(pose["pelvis"][0])
    knees = max(abs(float(pose[f"{side}_ankle"][0])) for side, _ in SIDES)
    foot = max(0.085 * build + flare, 0.03 + knees * (hem - 0.5) / 0.45 + 0.03) + 0.5 * flare
    hip = max(0.098 * build, 0.09 * build + 0.3 * flare)
    side = np.array(
        [
            (0.078 * build, top),
            (0.082 * build, top + 0.03),
            (hip, top + 0.1),
            (0.5 * (hip + foot), 0.5 * (top + 0.1 + hem)),
            (foot, hem),
        ]
    )
    sweep = np.array([(0.66 * foot, hem + 0.006), (0.33 * foot, hem + 0.009), (0.0, hem + 0.01)])
    half = np.vstack([smooth_open(side), sweep])
    return np.vstack([half, half[-2::-1] * (-1, 1)]) + (middle, 0.0)


def _folds(canvas: Canvas, pose: Pose, garment: Garment, top: float) -> None:
    """Folds that open towards the hem: a dark side and a light one."""
    middle = float(pose["pelvis"][0])
    for share in (-0.62, -0.2, 0.25, 0.66):
        start = np.array([middle + share * 0.09, top + 0.08])
        stop = np.array([middle + share * (0.12 + garment.flare * 1.2), garment.hem + 0.004])
        if stop[1] > start[1]:
            for sign, factor in ((1.0, 0.62), (-1.0, 1.25)):
                fold = np.stack([start, stop, stop + (sign * 0.009, 0.0)])
                canvas.fill(fold, flat(shade(garment.fabric.base, factor)), None, 0.35)


def _sheet(fabric: Fabric, centre: Points, half: float, folds: bool = False) -> Paint:
    """Cloth hanging flat: pattern in upright coordinates, darker towards its sides."""

    def paint(x: Values, y: Values) -> Values:
        u, v = x - np.float32(centre[0]), y - np.float32(centre[1])
        side = np.clip(np.abs(u) / half, 0, 1.3)
        tone = 1.05 - 0.2 * side**2 - (0.05 * np.sin(u * 80) * np.clip(v * 4, 0, 1) if folds else 0)
        return np.asarray(np.clip(weave(fabric, u, v) * tone[..., None], 0, 255), np.float32)

    return paint


def _tube(fabric: Fabric, start: Points, end: Points, radius: float, along: float = 0.0) -> Paint:
    """Cloth around a limb: the pattern follows the limb."""
    direction = (end - start) / np.linalg.norm(end - start)

    def paint(x: Values, y: Values) -> Values:
        dx, dy = x - np.float32(start[0]), y - np.float32(start[1])
        v, u = dx * direction[0] + dy * direction[1], dy * direction[0] - dx * direction[1]
        tone = 1.03 - 0.13 * np.clip(np.abs(u) / radius, 0, 1.2) ** 2
        return np.asarray(np.clip(weave(fabric, u, v + along) * tone[..., None], 0, 255), np.float32)

    return paint


def _cut(leg: tuple[Points, Points, Points], hem: float) -> Points:
    """Where a leg crosses the height of the hem."""
    for start, end in ((leg[0], leg[1]), (leg[1], leg[2])):
        if hem <= end[1]:
            return np.asarray(start + (end - start) * (hem - start[1]) / (end[1] - start[1]))
    return leg[2]
