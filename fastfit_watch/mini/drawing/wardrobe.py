"""Garments: what they are, drawn from a seed, and how they lie on a pose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.drawing.canvas import Canvas, Paint, Points, Values, ellipse, flat, limb, smooth
from fastfit_watch.mini.drawing.fabric import Colour, Fabric, draw_colour, draw_fabric, shade, weave

Labels = Mapping[str, int]
Pose = Mapping[str, Points]
SIDES = (("right", -1.0), ("left", 1.0))


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
    trim = draw_colour(rng)
    match category:
        case Category.UPPER:
            kind = str(rng.choice(["tee", "shirt", "knit", "tank"], p=[0.34, 0.26, 0.26, 0.14]))
            sleeve = {"tee": rng.uniform(0.3, 0.48), "shirt": rng.choice([0.42, 0.98]), "knit": 0.98, "tank": 0.0}[kind]
            neck = "collar" if kind == "shirt" else str(rng.choice(["crew", "vee", "scoop"]))
            return Garment(
                category, kind, draw_fabric(rng), trim, float(sleeve), float(rng.uniform(0.5, 0.545)), 0.0, neck
            )
        case Category.LOWER:
            kind = str(rng.choice(["trousers", "shorts", "skirt"], p=[0.5, 0.2, 0.3]))
            hem = {
                "trousers": rng.uniform(0.89, 0.94),
                "shorts": rng.uniform(0.63, 0.7),
                "skirt": rng.uniform(0.64, 0.86),
            }[kind]
            return Garment(category, kind, draw_fabric(rng), trim, 0.0, float(hem), float(rng.uniform(0.01, 0.07)))
        case Category.DRESS:
            sleeve = float(rng.choice([0.0, 0.36, 0.98], p=[0.4, 0.35, 0.25]))
            hem, flare = float(rng.uniform(0.66, 0.92)), float(rng.uniform(0.02, 0.09))
            return Garment(
                category, "dress", draw_fabric(rng), trim, sleeve, hem, flare, str(rng.choice(["crew", "vee", "scoop"]))
            )
        case Category.SHOE:
            kind = str(rng.choice(["sneaker", "boot", "pump"]))
            return Garment(category, kind, draw_fabric(rng, plain=True), trim)
        case Category.BAG:
            kind = str(rng.choice(["satchel", "round", "pouch"]))
            return Garment(category, kind, draw_fabric(rng, plain=bool(rng.random() < 0.6)), trim)


def dress_legs(canvas: Canvas, pose: Pose, build: float, lower: Garment, labels: Labels, skirt_labels: Labels) -> None:
    """Trousers, shorts or a skirt."""
    waist = pose["pelvis"] - (0.0, 0.045)
    half = 0.083 * build
    if lower.kind == "skirt":
        outline = _skirt_outline(pose, build, float(waist[1]) - 0.02, lower.hem, lower.flare)
        _drape(canvas, outline, lower.fabric, waist, half + lower.flare, skirt_labels)
        _folds(canvas, pose, lower, float(waist[1]))
    else:
        for side, _ in SIDES:
            leg = (pose[f"{side}_hip"], pose[f"{side}_knee"], pose[f"{side}_ankle"])
            stop = _cut(leg, lower.hem)
            wide = 0.056 * build + 0.3 * lower.flare
            parts = [(leg[0], min_point(leg[1], stop), 0.064 * build, wide)]
            if stop[1] > leg[1][1]:
                parts.append((leg[1], stop, wide, 0.045 * build + 0.35 * lower.flare))
            for start, end, r0, r1 in reversed(parts):
                outline = limb(start, end, r0, r1)
                outline = outline[outline[:, 1] <= max(end[1], start[1]) + 0.012]
                canvas.fill(outline, _tube(lower.fabric, leg[0], leg[2], r0), labels)
            canvas.stroke(
                np.stack([stop + (-0.05 * build, 0.004), stop + (0.05 * build, 0.004)]),
                0.006,
                shade(lower.fabric.base, 0.6),
                0.5,
            )
        seat = smooth(
            np.array(
                [(-half, -0.065), (half, -0.065), (half * 1.2, 0.06), (0.02, 0.1), (-0.02, 0.1), (-half * 1.2, 0.06)]
            )
            + pose["pelvis"],
            2,
        )
        canvas.fill(seat, _sheet(lower.fabric, pose["pelvis"], half * 1.25), labels)
        crotch = pose["pelvis"] + (0.0, 0.05)
        canvas.stroke(np.stack([crotch, crotch + (0.0, 0.06)]), 0.005, shade(lower.fabric.base, 0.6), 0.6)
    band = np.array([(-half, -0.068), (half, -0.068), (half * 1.03, -0.045), (-half * 1.03, -0.045)]) + pose["pelvis"]
    canvas.fill(band, flat(shade(lower.fabric.base, 0.75)), skirt_labels if lower.kind == "skirt" else labels)


def dress_torso(canvas: Canvas, pose: Pose, build: float, top: Garment, labels: Labels) -> None:
    """The body of an upper garment or a dress, without its sleeves."""
    if top.category is Category.DRESS:
        outline = _skirt_outline(pose, build, 0.42, top.hem, top.flare)
        _drape(canvas, outline, top.fabric, pose["pelvis"], 0.1 * build + top.flare, labels)
        _folds(canvas, pose, top, 0.45)
        bottom = 0.44
    else:
        bottom = top.hem
    outline = torso_outline(pose, build, bottom, wide=top.kind in ("knit", "shirt"))
    canvas.fill(outline, _sheet(top.fabric, pose["neck"], 0.11 * build), labels)
    low = shade(top.fabric.base, 0.7)
    if top.category is Category.DRESS:
        belt = np.array(
            [(-0.0755 * build, 0.418), (0.0755 * build, 0.418), (0.0785 * build, 0.442), (-0.0785 * build, 0.442)]
        )
        canvas.fill(belt + (pose["pelvis"][0] * 0.85, 0), flat(top.trim), labels)
    elif top.kind == "knit":
        hem = np.array(
            [
                (-0.09 * build, bottom - 0.022),
                (0.09 * build, bottom - 0.022),
                (0.088 * build, bottom),
                (-0.088 * build, bottom),
            ]
        )
        canvas.fill(hem + (pose["pelvis"][0], 0), flat(low), labels)
    elif top.kind == "shirt":
        x = pose["neck"][0]
        canvas.stroke(np.array([(x, 0.19), (pose["pelvis"][0], bottom - 0.005)]), 0.004, low, 0.8)
        for y in np.arange(0.22, bottom - 0.03, 0.06):
            canvas.fill(ellipse((x + 0.006, float(y)), (0.006, 0.006)), flat(top.trim))


def dress_arm(canvas: Canvas, pose: Pose, build: float, side: str, top: Garment, labels: Labels) -> None:
    """One sleeve."""
    if top.sleeve <= 0:
        return
    arm = (pose[f"{side}_shoulder"], pose[f"{side}_elbow"], pose[f"{side}_wrist"])
    loose = 1.25 if top.kind in ("knit", "shirt") else 1.12
    r0, r1, r2 = 0.034 * build * loose, 0.030 * build * loose, 0.025 * build * loose
    total = min(2.0, top.sleeve * 2)
    paint = _tube(top.fabric, arm[0], arm[1], r0)
    if total > 1:
        end = arm[1] + (arm[2] - arm[1]) * min(1.0, total - 1)
        canvas.fill(limb(arm[1], end, r1, r2), _tube(top.fabric, arm[1], arm[2], r1, along=0.165), labels)
        cuff = arm[1] + (arm[2] - arm[1]) * (min(1.0, total - 1) - 0.12)
        canvas.fill(limb(cuff, end, r2 * 1.02, r2 * 1.02), flat(shade(top.fabric.base, 0.75)), labels)
    end = arm[0] + (arm[1] - arm[0]) * min(1.0, total)
    inner = arm[0] + (-0.012 if arm[0][0] > 0 else 0.012, 0.018)
    canvas.fill(limb(inner, end, r0, r0 + (r1 - r0) * min(1.0, total)), paint, labels)
    edge = np.array([arm[1][1] - arm[0][1], arm[0][0] - arm[1][0]]) / np.linalg.norm(arm[1] - arm[0])
    if total <= 1:
        canvas.stroke(np.stack([end + edge * r1, end - edge * r1]), 0.008, shade(top.fabric.base, 0.7), 0.6)


def trim_neck(canvas: Canvas, pose: Pose, top: Garment, skin: Colour, labels: Labels) -> None:
    """The neck opening: skin in its shape, with a trim around it."""
    x, y = pose["neck"][0], 0.188
    shapes = {
        "crew": ellipse((x, y - 0.012), (0.042, 0.024), 0, 180),
        "scoop": ellipse((x, y - 0.012), (0.056, 0.056), 0, 180),
        "vee": np.array([(x - 0.046, y - 0.014), (x, y + 0.066), (x + 0.046, y - 0.014)]),
        "collar": np.array([(x - 0.036, y - 0.012), (x, y + 0.03), (x + 0.036, y - 0.012)]),
    }
    shape = shapes[top.neck]
    canvas.fill(shape, flat(skin), labels)
    canvas.stroke(shape, 0.009, top.trim if top.neck != "collar" else shade(top.fabric.base, 1.12))
    if top.neck == "collar":
        for sign in (-1.0, 1.0):
            flap = np.array(
                [
                    (x + sign * 0.04, y - 0.02),
                    (x + sign * 0.002, y + 0.03),
                    (x + sign * 0.05, y + 0.032),
                    (x + sign * 0.064, y + 0.002),
                ]
            )
            canvas.fill(flap, flat(shade(top.fabric.base, 1.1)))
            canvas.stroke(flap, 0.003, shade(top.fabric.base, 0.65), 0.8)


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
    room = 1.08 if wide else 1.0
    waist = 0.074 if not wide else 0.086
    left = [
        (-0.034, 0.170),
        (-0.09, 0.180),
        (-0.108, 0.198),
        (-0.104, 0.24),
        (-0.09 * room, 0.30),
        (-waist * room, 0.41),
        (-0.087 * room, min(bottom, 0.5)),
        (-0.092 * room, bottom),
    ]
    right = [(-x, y) for x, y in reversed(left)]
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
    half = np.vstack([side, sweep])
    return np.vstack([half, half[-2::-1] * (-1, 1)]) + (middle, 0.0)


def _drape(canvas: Canvas, outline: Points, fabric: Fabric, centre: Points, half: float, labels: Labels) -> None:
    canvas.fill(outline, _sheet(fabric, centre, half, folds=True), labels)


def _folds(canvas: Canvas, pose: Pose, garment: Garment, top: float) -> None:
    middle = float(pose["pelvis"][0])
    for share in (-0.5, 0.05, 0.55):
        start = np.array([middle + share * 0.07, top + 0.1])
        stop = np.array([middle + share * (0.12 + garment.flare * 1.4), garment.hem - 0.004])
        if stop[1] > start[1]:
            canvas.stroke(np.stack([start, stop]), 0.006, shade(garment.fabric.base, 0.6), 0.35)


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
        tone = 1.04 - 0.26 * np.clip(np.abs(u) / radius, 0, 1.2) ** 2
        return np.asarray(np.clip(weave(fabric, u, v + along) * tone[..., None], 0, 255), np.float32)

    return paint


def _cut(leg: tuple[Points, Points, Points], hem: float) -> Points:
    """Where a leg crosses the height of the hem."""
    for start, end in ((leg[0], leg[1]), (leg[1], leg[2])):
        if hem <= end[1]:
            return np.asarray(start + (end - start) * (hem - start[1]) / (end[1] - start[1]))
    return leg[2]


def min_point(one: Points, other: Points) -> Points:
    """The higher of two points."""
    return one if one[1] <= other[1] else other
