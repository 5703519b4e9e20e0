"""The person without clothes, hair aside: legs, chest, arms, hands and face, in soft flat colours."""

from __future__ import annotations

import numpy as np

from fastfit_watch.mini.body import EYE_V, FACE, FOOT, HEAD_SIZE, LEFT, RIGHT, SIGNS, UPPER_ARM, Person
from fastfit_watch.mini.canvas import Canvas, Colour, contour, crease, profile, roundness, shade
from fastfit_watch.mini.fabric import darker
from fastfit_watch.mini.labels import ARMS, LEGS, Surface

_NECK_SPLIT_V = 0.074  # below this, in the head's frame, skin counts as the chest


def draw_legs(canvas: Canvas, person: Person) -> None:
    """Bare legs and feet."""
    figure = person.figure
    for side in (RIGHT, LEFT):
        foot = canvas.blob(figure.foot_frame(side), FOOT)
        canvas.paint(foot, shade(person.skin, contour(foot, strength=0.2)), LEGS[side])
        knee = figure.thigh(side)
        leg = canvas.tube(figure.leg_bones(side), figure.build.leg(knee))
        dark = roundness(leg, 0.17) + contour(leg, 0.004, 0.16)
        dark += 0.09 * crease(leg, (-0.012, knee + 0.014), (0.014, knee + 0.012), 0.012)
        canvas.paint(leg, shade(person.skin, dark), LEGS[side])


def draw_chest(canvas: Canvas, person: Person) -> None:
    """Neck, shoulders and chest."""
    figure = person.figure
    torso = canvas.tube(figure.spine, profile(*figure.build.torso()[:8]))
    dark = roundness(torso, 0.1) + contour(torso, 0.004, 0.14)
    dark += 0.16 * crease(torso, (-0.012, 0.022), (-0.06, 0.012), 0.006)
    dark += 0.16 * crease(torso, (0.012, 0.022), (0.06, 0.012), 0.006)
    canvas.paint(torso, shade(person.skin, dark), Surface.CHEST)
    width = 0.0255 if person.feminine else 0.0305
    bone = (figure.head_frame.place(0.0, 0.03), figure.on_torso(0.0, 0.012))
    length = float(np.hypot(*np.subtract(bone[1], bone[0])))
    neck = canvas.tube(bone, profile((0.0, width), (length * 0.6, width), (length + 0.012, width * 1.5)))
    # The chin throws the one strong shadow of the figure.
    chin = np.clip(1 - (neck.v - 0.038) * 26 - neck.side * 0.25, 0, 1)
    alpha = canvas.coverage(neck)
    canvas.paint(neck, shade(person.skin, 0.05 * neck.side**2 + 0.2 * chin), Surface.CHEST)
    split = (_NECK_SPLIT_V - 0.03) * HEAD_SIZE
    canvas.label(neck, (alpha > 0.5) & (neck.v < split), Surface.FACE)


def draw_arm(canvas: Canvas, person: Person, side: int) -> None:
    """One bare arm with its hand."""
    figure = person.figure
    arm = canvas.tube(figure.arm_bones(side), figure.build.arm(), round_start=True)
    # At the shoulder the arm must melt into the chest, so its line begins further down.
    dark = (roundness(arm, 0.17) + contour(arm, 0.004, 0.2)) * np.clip(arm.v * 22, 0, 1)
    dark += 0.1 * crease(arm, (-0.008, UPPER_ARM), (0.006, UPPER_ARM - 0.004), 0.008)
    canvas.paint(arm, shade(person.skin, dark), ARMS[side])
    bones = (figure.wrists[side], figure.hands[side])
    hand = canvas.tube(bones, figure.build.hand(), round_stop=True)
    sign = SIGNS[side]
    along = np.subtract(bones[1], bones[0]) / np.hypot(*np.subtract(bones[1], bones[0]))
    # The thumb lies on the inner side: towards the body.
    inner = np.array([along[1], -along[0]]) * -sign
    start = np.array(bones[0]) + along * 0.008 + inner * 0.009
    tip = start + along * 0.024 + inner * 0.011
    thumb = canvas.tube(
        ((float(start[0]), float(start[1])), (float(tip[0]), float(tip[1]))),
        profile((0.0, 0.0078), (0.024, 0.0056)),
        round_start=True,
        round_stop=True,
    )
    canvas.paint(thumb, shade(person.skin, 0.04 + contour(thumb, 0.004, 0.24)), ARMS[side])
    dark = 0.1 * hand.side**2 * np.sign(hand.side) * sign + contour(hand, 0.004, 0.24)
    for share in (-0.35, 0.1, 0.5):
        dark += 0.2 * crease(hand, (share * 0.016, 0.047), (share * 0.019, 0.03), 0.0028)
    canvas.paint(hand, shade(person.skin, dark), ARMS[side])


def draw_head(canvas: Canvas, person: Person) -> None:
    """Ears and face; hair comes on top."""
    frame = person.figure.head_frame
    bone = frame.place(0.0, 0.0), frame.place(0.0, 0.05)
    for sign in SIGNS:
        ear_bone = frame.place(sign * 0.0505, 0.0), frame.place(sign * 0.0485, 0.018)
        ear = canvas.tube(ear_bone, profile((0.0, 0.0095), (0.018, 0.006)), round_start=True, round_stop=True)
        canvas.paint(ear, shade(person.skin, 0.1 + contour(ear, 0.004, 0.2)), Surface.FACE)
    head = canvas.tube(bone, profile(*((v * HEAD_SIZE, half * HEAD_SIZE) for v, half in FACE)))
    dark = roundness(head, 0.11) + contour(head, 0.004, 0.14)
    dark += 0.1 * np.clip(-0.02 - head.v, 0, 1) * 10
    canvas.paint(head, shade(person.skin, dark), Surface.FACE)
    if person.beard:
        _draw_beard(canvas, person)
    _draw_features(canvas, person)


def _draw_features(canvas: Canvas, person: Person) -> None:
    frame = person.figure.head_frame
    blush: Colour = (232, 104, 92)
    line = darker(person.skin, 0.42)
    brow = darker(person.hair, 0.15) if person.hair_cut != "bald" else (70, 54, 48)
    for sign in SIGNS:
        canvas.glow(frame.place(sign * 0.03, 0.027), (0.016, 0.011), blush, 0.3 if person.feminine else 0.16)
        x = sign * 0.0205
        white = canvas.tube(
            (frame.place(x - 0.0035, EYE_V), frame.place(x + 0.0035, EYE_V)),
            profile((0.0, 0.0052), (0.007, 0.0052)),
            round_start=True,
            round_stop=True,
        )
        canvas.paint(white, (255, 252, 248), opacity=0.9)
        canvas.dot(frame.place(x, EYE_V), 0.0056, person.eyes)
        canvas.dot(frame.place(x, EYE_V), 0.003, (24, 20, 22))
        canvas.dot(frame.place(x - 0.0018, EYE_V - 0.002), 0.0015, (255, 255, 255))
        lash = 0.0032 if person.feminine else 0.0024
        lid = [frame.place(x + sign * a, EYE_V + b) for a, b in ((-0.009, 0.0), (-0.002, -0.0062), (0.0095, -0.0015))]
        canvas.stroke(lid, lash, (48, 36, 36))
        arch = ((-0.01, -0.0125), (0.0, -0.017), (0.0115, -0.0125))
        canvas.stroke(
            [frame.place(x + sign * a, EYE_V + b) for a, b in arch], 0.0032 if person.feminine else 0.0048, brow, 0.9
        )
        if person.glasses:
            _draw_lens(canvas, person, x)
    canvas.stroke(
        [frame.place(a, b) for a, b in ((0.002, 0.012), (0.0052, 0.0255), (-0.001, 0.0285))], 0.0026, line, 0.75
    )
    smile = 0.0022 + 0.0042 * person.smile
    width = 0.0135 + 0.002 * person.smile
    mouth = canvas.blob(
        frame,
        (
            (-width, 0.0425),
            (-0.005, 0.0415),
            (0.0, 0.0428),
            (0.005, 0.0415),
            (width, 0.0425),
            (0.0, 0.0428 + smile * 1.5),
        ),
    )
    canvas.paint(mouth, person.lips, opacity=0.95)
    curve = [frame.place(a, b) for a, b in ((-width, 0.0418), (0.0, 0.0432 + smile * 0.35), (width, 0.0418))]
    canvas.stroke(curve, 0.0024, darker(person.lips, 0.34))
    if person.glasses:
        canvas.stroke(
            [frame.place(-0.008, EYE_V), frame.place(0.0, EYE_V - 0.002), frame.place(0.008, EYE_V)],
            0.0024,
            (52, 46, 50),
        )


def _draw_lens(canvas: Canvas, person: Person, x: float) -> None:
    frame = person.figure.head_frame
    angles = np.linspace(0, 2 * np.pi, 13)
    rim = [frame.place(x + 0.0135 * float(np.cos(a)), EYE_V + 0.001 + 0.0125 * float(np.sin(a))) for a in angles]
    canvas.stroke(rim, 0.0026, (52, 46, 50))


def _draw_beard(canvas: Canvas, person: Person) -> None:
    frame = person.figure.head_frame
    half = ((0.05, 0.012), (0.0475, 0.032), (0.038, 0.052), (0.022, 0.067), (0.0, 0.0725))
    cheek = ((0.0, 0.036), (0.016, 0.0345), (0.03, 0.035), (0.043, 0.022))
    outline = [*half, *((-a, b) for a, b in reversed(half[:-1])), *((-a, b) for a, b in reversed(cheek[1:])), *cheek]
    beard = canvas.blob(frame, outline, smooth=False)
    canvas.paint(beard, shade(darker(person.hair, 0.05), contour(beard, 0.006, 0.12)), Surface.FACE, opacity=0.88)
