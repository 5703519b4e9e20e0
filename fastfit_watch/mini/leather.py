"""Shoes and cross-body bags, worn and lying flat."""

from __future__ import annotations

from collections.abc import Sequence

from fastfit_watch.mini.body import LEFT, RIGHT, TORSO, Figure
from fastfit_watch.mini.canvas import Canvas, Colour, Frame, Point, contour, roundness, shade, turned
from fastfit_watch.mini.fabric import darker
from fastfit_watch.mini.labels import SHOES, Surface
from fastfit_watch.mini.wardrobe import Bag, BagCut, Shoe, ShoeCut

# Outlines in a foot's frame: from the ankle, x towards the toes, y down to the sole at about 0.06.
_UPPERS: dict[ShoeCut, tuple[Point, ...]] = {
    ShoeCut.SNEAKER: (
        (-0.021, 0.0), (-0.024, 0.024), (-0.026, 0.05), (0.0, 0.058), (0.04, 0.063), (0.066, 0.062), (0.07, 0.05),
        (0.056, 0.037), (0.034, 0.024), (0.021, 0.004), (0.0, 0.008),
    ),
    ShoeCut.BOOT: (
        (-0.022, -0.02), (-0.022, 0.02), (-0.026, 0.05), (0.0, 0.056), (0.04, 0.062), (0.066, 0.061), (0.069, 0.048),
        (0.052, 0.035), (0.03, 0.022), (0.022, -0.002), (0.021, -0.02), (0.0, -0.022),
    ),
    ShoeCut.PUMP: (
        (-0.021, 0.022), (-0.024, 0.042), (-0.018, 0.05), (0.01, 0.053), (0.04, 0.064), (0.07, 0.065), (0.073, 0.06),
        (0.058, 0.05), (0.04, 0.043), (0.016, 0.044), (-0.006, 0.038), (-0.014, 0.026),
    ),
}  # fmt: skip
_SOLES: dict[ShoeCut, tuple[Point, ...]] = {
    ShoeCut.SNEAKER: (
        (-0.028, 0.046), (-0.028, 0.061), (-0.01, 0.064), (0.035, 0.069), (0.066, 0.069), (0.074, 0.06), (0.073, 0.053),
        (0.04, 0.056), (0.0, 0.05),
    ),
    ShoeCut.BOOT: (
        (-0.028, 0.048), (-0.028, 0.064), (-0.006, 0.065), (-0.002, 0.061), (0.035, 0.068), (0.066, 0.068),
        (0.073, 0.061),
        (0.07, 0.056), (0.035, 0.058), (0.0, 0.053),
    ),
}  # fmt: skip
_HEEL: tuple[Point, ...] = ((-0.024, 0.044), (-0.02, 0.068), (-0.013, 0.068), (-0.01, 0.05))

# Outlines in a bag's frame: 1 is half its width; the strap ends at its upper corners.
_BODIES: dict[BagCut, tuple[Point, ...]] = {
    BagCut.SATCHEL: (
        (-0.96, -0.66), (0.96, -0.66), (1.0, -0.6), (1.0, 0.6),
        (0.92, 0.7), (-0.92, 0.7), (-1.0, 0.6), (-1.0, -0.6),
    ),
    BagCut.SADDLE: (
        (-0.94, -0.56), (0.0, -0.64), (0.94, -0.56), (1.02, 0.0), (0.86, 0.52),
        (0.44, 0.76), (0.0, 0.82), (-0.44, 0.76), (-0.86, 0.52), (-1.02, 0.0),
    ),
    BagCut.BUCKET: (
        (-0.66, -0.76), (0.0, -0.7), (0.66, -0.76), (0.78, 0.0), (0.86, 0.66),
        (0.7, 0.82), (0.0, 0.88), (-0.7, 0.82), (-0.86, 0.66), (-0.78, 0.0),
    ),
}  # fmt: skip
_FLAPS: dict[BagCut, tuple[Point, ...]] = {
    BagCut.SATCHEL: ((-0.98, -0.66), (0.98, -0.66), (0.98, 0.02), (0.9, 0.12), (-0.9, 0.12), (-0.98, 0.02)),
    BagCut.SADDLE: (
        (-0.94, -0.56), (0.0, -0.64), (0.94, -0.56), (0.9, -0.1),
        (0.5, 0.26), (0.0, 0.38), (-0.5, 0.26), (-0.9, -0.1),
    ),
    BagCut.BUCKET: ((-0.68, -0.78), (0.0, -0.72), (0.68, -0.78), (0.72, -0.44), (0.0, -0.36), (-0.72, -0.44)),
}  # fmt: skip
_HALF_BAG = 0.056
_STRAP = 0.0115


def draw_shoes(canvas: Canvas, figure: Figure, shoe: Shoe) -> None:
    """A pair on a person's feet."""
    for side in (RIGHT, LEFT):
        draw_shoe(canvas, figure.foot_frame(side), shoe, SHOES[side])


def draw_shoe(canvas: Canvas, frame: Frame, shoe: Shoe, surface: Surface, *, empty: bool = False) -> None:
    """One shoe; `empty` shows its lining."""
    if empty:
        opening = _UPPERS[shoe.cut]
        rim = [
            opening[0],
            opening[-1],
            opening[-2],
            (opening[-2][0], opening[-2][1] + 0.01),
            (opening[0][0], opening[0][1] + 0.01),
        ]
        if shoe.cut is not ShoeCut.BOOT:
            top = min(b for _, b in opening)
            rim = [
                (opening[0][0] + 0.001, opening[0][1]),
                (0.0, top - 0.003),
                (0.02, opening[-2][1]),
                (0.01, 0.045),
                (-0.015, 0.04),
            ]
        lining = canvas.blob(frame, rim)
        canvas.paint(lining, darker(shoe.upper, 0.5), surface)
    if shoe.cut is ShoeCut.PUMP:
        heel = canvas.blob(frame, _HEEL, smooth=False)
        canvas.paint(heel, darker(shoe.upper, 0.3), surface)
    upper = canvas.blob(frame, _UPPERS[shoe.cut])
    light = 4.0 * (upper.v - 0.03) + 1.2 * (upper.u - 0.02)
    canvas.paint(upper, shade(shoe.upper, light + contour(upper, 0.0045, 0.3)), surface)
    if shoe.cut in _SOLES:
        sole = canvas.blob(frame, _SOLES[shoe.cut])
        canvas.paint(sole, shade(shoe.sole, contour(sole, 0.004, 0.2)), surface)
    match shoe.cut:
        case ShoeCut.SNEAKER:
            _draw_sneaker_details(canvas, frame, shoe)
        case ShoeCut.BOOT:
            gusset = canvas.blob(
                frame, ((-0.008, -0.018), (0.01, -0.018), (0.006, 0.022), (-0.002, 0.022)), smooth=False
            )
            canvas.paint(gusset, shoe.accent)
            _stroke(canvas, frame, ((-0.022, 0.03), (0.0, 0.036), (0.03, 0.03)), 0.0022, shoe.accent, 0.7)
        case ShoeCut.PUMP:
            _stroke(canvas, frame, ((0.05, 0.049), (0.064, 0.054), (0.07, 0.06)), 0.003, darker(shoe.upper, -0.45), 0.8)


def _draw_sneaker_details(canvas: Canvas, frame: Frame, shoe: Shoe) -> None:
    swoosh = canvas.blob(
        frame, ((-0.012, 0.03), (0.004, 0.044), (0.03, 0.04), (0.036, 0.034), (0.022, 0.037), (0.006, 0.035))
    )
    canvas.paint(swoosh, shoe.accent)
    heel = canvas.blob(frame, ((-0.022, 0.002), (-0.012, 0.004), (-0.013, 0.026), (-0.024, 0.028)), smooth=False)
    canvas.paint(heel, shoe.accent)
    for a, b in ((0.026, 0.014), (0.034, 0.023), (0.043, 0.0295)):
        _stroke(canvas, frame, ((a + 0.003, b), (a - 0.009, b + 0.008)), 0.0034, (252, 250, 244))
    _stroke(canvas, frame, ((0.05, 0.058), (0.054, 0.046), (0.062, 0.042)), 0.002, darker(shoe.upper, 0.35), 0.7)


def draw_worn_bag(canvas: Canvas, figure: Figure, bag: Bag) -> None:
    """Strap from the right shoulder across the chest, bag before the left hip."""
    # The strap follows the diagonal of the torso's box: there the try-on mask leaves room for one.
    shoulder = figure.on_torso(-0.82 * figure.build.shoulder, 0.012)
    frame = bag_frame(figure)
    corner = frame.place(-0.32, -0.6)
    _draw_strap(canvas, [shoulder, corner], bag)
    far = frame.place(0.8, -0.6)
    hip = figure.on_torso(figure.build.waist + 0.004, 0.255)
    _draw_strap(canvas, [hip, far], bag)
    draw_bag(canvas, frame, bag)


def bag_frame(figure: Figure) -> Frame:
    """Where a worn bag hangs."""
    return turned(figure.on_torso(0.076, TORSO + 0.028), -0.06 + figure.lean * 0.5, _HALF_BAG)


def draw_flat_bag(canvas: Canvas, bag: Bag) -> None:
    """A bag on a table, its strap laid in a loop above it."""
    frame = turned((0.0, 0.03), 0.0, _HALF_BAG)
    width = 0.62 if bag.cut is BagCut.BUCKET else 0.9
    loop = [
        (-width, -0.55),
        (-width * 0.92, -1.3),
        (-0.4, -1.95),
        (0.1, -2.05),
        (0.55, -1.75),
        (width * 0.9, -1.2),
        (width, -0.55),
    ]
    _draw_strap(canvas, [frame.place(a, b) for a, b in loop], bag)
    draw_bag(canvas, frame, bag)


def draw_bag(canvas: Canvas, frame: Frame, bag: Bag) -> None:
    """The body of a bag."""
    body = canvas.blob(frame, _BODIES[bag.cut], smooth=bag.cut is not BagCut.SATCHEL)
    dark = 0.5 * roundness(body) + 0.06 * body.v + contour(body, 0.005, 0.3)
    canvas.paint(body, shade(bag.leather, dark))
    canvas.label(body, canvas.coverage(body) > 0.5, Surface.BAG, over=True)
    flap = canvas.blob(frame, _FLAPS[bag.cut], smooth=bag.cut is not BagCut.SATCHEL)
    canvas.paint(
        flap,
        shade(
            bag.accent if bag.cut is BagCut.BUCKET else bag.leather, 0.3 * roundness(flap) + contour(flap, 0.004, 0.36)
        ),
    )
    match bag.cut:
        case BagCut.SATCHEL:
            for a in (-0.5, 0.5):
                _stroke(canvas, frame, ((a, -0.62), (a, 0.26)), 0.2 * _HALF_BAG, bag.accent)
                _stroke(canvas, frame, ((a, 0.14), (a, 0.3)), 0.2 * _HALF_BAG, bag.metal)
        case BagCut.SADDLE:
            _stroke(
                canvas,
                frame,
                ((-0.86, -0.2), (-0.46, 0.14), (0.0, 0.24), (0.46, 0.14), (0.86, -0.2)),
                0.06 * _HALF_BAG,
                bag.accent,
                0.9,
            )
            clasp = canvas.blob(frame, ((0.0, 0.16), (0.16, 0.32), (0.0, 0.5), (-0.16, 0.32)))
            canvas.paint(clasp, bag.metal)
        case BagCut.BUCKET:
            _stroke(canvas, frame, ((-0.3, -0.44), (0.0, -0.3), (0.3, -0.44)), 0.08 * _HALF_BAG, bag.metal)
            for a in (-0.12, 0.12):
                _stroke(canvas, frame, ((0.0, -0.3), (a, 0.1)), 0.09 * _HALF_BAG, bag.accent)


def _draw_strap(canvas: Canvas, path: Sequence[Point], bag: Bag) -> None:
    canvas.stroke(path, _STRAP, darker(bag.accent, 0.25), over=Surface.BAG)
    canvas.stroke(path, _STRAP * 0.56, bag.accent)


def _stroke(
    canvas: Canvas, frame: Frame, path: Sequence[Point], width: float, colour: Colour, opacity: float = 1.0
) -> None:
    """A line in a frame's coordinates; its width follows the frame's size when that is a foot's."""
    canvas.stroke([frame.place(a, b) for a, b in path], width, colour, opacity)


def flat_shoe_frames() -> tuple[Frame, Frame]:
    """A pair on a table, one shoe above the other, toes to the left."""
    return (
        turned((0.016, -0.054), 0.08, mirrored=True),
        turned((0.028, 0.012), 0.03, mirrored=True),
    )
