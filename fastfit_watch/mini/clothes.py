"""Tops, trousers, skirts and dresses, drawn on any figure: on a person, or lying flat. One routine does both,
so that a garment and its flat-lay picture agree by construction.
"""

from __future__ import annotations

import itertools

import numpy as np

from fastfit_watch.mini.body import (
    ARMPIT_V,
    FOREARM,
    LEFT,
    PELVIS_Y,
    RIGHT,
    SHOULDER_V,
    SIGNS,
    TORSO,
    UPPER_ARM,
    WAIST_V,
    Figure,
)
from fastfit_watch.mini.canvas import (
    Canvas,
    Colour,
    Floats,
    Frame,
    Piece,
    Point,
    contour,
    crease,
    limit,
    profile,
    roundness,
    shade,
    turned,
)
from fastfit_watch.mini.fabric import Fabric, darker
from fastfit_watch.mini.labels import Surface
from fastfit_watch.mini.wardrobe import Bottom, Dress, Neckline, Top

TOP_HEM_V = 0.332  # all tops end here, so that a new one never needs room that trousers hold
WAISTBAND_V = 0.262
_SEAM = 0.0035  # width of a stitched line


def draw_top(canvas: Canvas, figure: Figure, top: Top) -> None:
    """The body of a top; its sleeves come later, over a bag."""
    _draw_back_of_neck(canvas, figure, top.neckline, top.fabric, Surface.UPPER)
    knots = [knot for knot in figure.build.torso(top.ease) if knot[0] < TOP_HEM_V - 0.02]
    hem = figure.build.hip + top.ease * 1.3
    if top.ribbed:
        knots += [(TOP_HEM_V - 0.02, hem), (TOP_HEM_V, hem - 0.005)]
    else:
        knots.append((TOP_HEM_V, hem))
    body = canvas.tube(figure.spine, profile(*knots))
    body = _open_neck(body, top.neckline)
    if top.sleeve == 0:
        body = _open_armholes(body, figure)
    base = top.fabric.colour(body.u * _to_mean(figure), body.v, canvas.scale)
    dark = roundness(body, 0.13) + contour(body) + _torso_folds(body)
    if not top.ribbed:
        dark += 0.16 * _line(body.v - (TOP_HEM_V - 0.012), _SEAM)
    canvas.paint(body, shade(base, dark), Surface.UPPER)
    if top.ribbed:
        _draw_band(canvas, body, body.v - (TOP_HEM_V - 0.022), top.trim)
    _draw_details(canvas, figure, body, top)
    _draw_neck(canvas, figure, body, top.neckline, top.fabric, top.trim, Surface.UPPER)


def draw_sleeve(canvas: Canvas, figure: Figure, garment: Top | Dress, side: int, surface: Surface) -> None:
    """One sleeve, if the garment has any."""
    if garment.sleeve == 0:
        return
    ease = garment.ease if isinstance(garment, Top) else 0.005
    ribbed = isinstance(garment, Top) and garment.ribbed
    length = garment.sleeve * (UPPER_ARM + FOREARM)
    arm = figure.build.arm()
    long = garment.sleeve > 0.8
    end = ease * (0.5 if ribbed else 0.8) + 0.004 if long else ease + 0.006
    knots = [(0.0, arm.at(0.0) + 0.002), (0.05, arm.at(0.05) + 0.004 + ease * 0.6)]
    if long:
        knots += [
            (UPPER_ARM, arm.at(UPPER_ARM) + 0.004 + ease * 0.8),
            (length - 0.03, arm.at(length - 0.03) + 0.003 + ease),
        ]
    knots.append((length, arm.at(length) + end))
    sleeve = canvas.tube(figure.arm_bones(side), profile(*knots), round_start=True)
    shift = SIGNS[side] * figure.build.shoulder
    base = garment.fabric.colour(sleeve.u + np.float32(shift), sleeve.v + np.float32(SHOULDER_V), canvas.scale)
    # Above the armpit the sleeve belongs to the shoulder: only its seam shows.
    free = limit((sleeve.v - 0.012) * 30)
    dark = roundness(sleeve, 0.17) * free + contour(sleeve) * (0.15 + 0.85 * free)
    if long:
        for shift_v, lean in ((-0.012, 0.01), (0.012, -0.006)):
            v = UPPER_ARM + shift_v
            dark += 0.13 * crease(sleeve, (-SIGNS[side] * 0.022, v), (SIGNS[side] * 0.012, v + lean), 0.007)
    if not ribbed:
        dark += 0.16 * _line(sleeve.v - (length - 0.01), _SEAM)
    canvas.paint(sleeve, shade(base, dark), surface)
    if ribbed:
        _draw_band(canvas, sleeve, sleeve.v - (length - 0.02), garment.trim)


def draw_bottom(canvas: Canvas, figure: Figure, bottom: Bottom) -> None:
    """Trousers, shorts or a skirt."""
    if bottom.skirt:
        skirt = _skirt(canvas, figure, bottom.hem, bottom.flare, WAISTBAND_V)
        base = bottom.fabric.colour(skirt.u * _to_mean(figure), skirt.v, canvas.scale)
        dark = _skirt_shade(skirt, bottom.hem - PELVIS_Y + TORSO, bottom.pleats)
        canvas.paint(skirt, shade(base, dark), Surface.SKIRT)
        _draw_band(canvas, skirt, WAISTBAND_V + 0.022 - skirt.v, darker(bottom.fabric.ground, 0.1))
        return
    for side in (RIGHT, LEFT):
        _draw_leg(canvas, figure, bottom, side)
    waist = canvas.tube(figure.spine, profile(*_waist_knots(figure, 0.006)))
    band = darker(bottom.fabric.ground, 0.12)
    canvas.paint(
        waist.cut(WAISTBAND_V + 0.024 - waist.v), shade(band, roundness(waist, 0.13) + contour(waist)), Surface.PANTS
    )


def draw_dress(canvas: Canvas, figure: Figure, dress: Dress) -> None:
    """A dress without its sleeves."""
    _draw_back_of_neck(canvas, figure, dress.neckline, dress.fabric, Surface.DRESS)
    hem_v = dress.hem - PELVIS_Y + TORSO
    knots = [knot for knot in figure.build.torso(0.005) if knot[0] < 0.31]
    body = _hanging(canvas, figure, [*knots, *_skirt_knots(figure, dress.hem, dress.flare)])
    body = _open_neck(body, dress.neckline)
    if dress.sleeve == 0:
        body = _open_armholes(body, figure)
    base = dress.fabric.colour(body.u * _to_mean(figure), body.v, canvas.scale)
    waist = limit(1 - np.abs(body.v - WAIST_V) * 40)
    dark = _skirt_shade(body, hem_v, dress.pleats) + _torso_folds(body) + 0.08 * waist
    canvas.paint(body, shade(base, dark), Surface.DRESS)
    if dress.belt is not None:
        belt = body.cut(0.011 - np.abs(body.v - WAIST_V))
        canvas.paint(belt, shade(dress.belt, roundness(belt, 0.14) + contour(belt, 0.004, 0.3)))
    if dress.neckline is Neckline.COLLAR:
        _draw_buttons(canvas, figure, dress.trim, 0.2)
    _draw_neck(canvas, figure, body, dress.neckline, dress.fabric, dress.trim, Surface.DRESS)


def _draw_leg(canvas: Canvas, figure: Figure, bottom: Bottom, side: int) -> None:
    """One trouser leg with its half of the hips."""
    sign = SIGNS[side]
    hip, knee, ankle = figure.leg_bones(side)
    top = figure.on_torso(sign * abs(hip[0] - figure.pelvis[0]), WAISTBAND_V)
    rise = float(np.hypot(*np.subtract(hip, top)))
    thigh = figure.thigh(side)
    length = rise + (bottom.hem - hip[1]) * 2 * thigh / (ankle[1] - hip[1])
    leg = figure.build.leg(thigh)
    offset = abs(hip[0] - figure.pelvis[0])
    crotch = rise + 0.03
    waist, wide = figure.build.waist + 0.004, figure.build.hip + 0.005
    outer: list[Point] = [(0.0, waist - offset + 0.008), (rise * 0.6, wide - offset - 0.002), (rise, wide - offset)]
    inner: list[Point] = [(0.0, offset + 0.002), (crotch - 0.008, offset + 0.002)]
    for v, ease in ((rise + thigh * 0.5, 0.007), (rise + thigh, 0.009 + bottom.flare * 0.7)):
        if v < length - 0.02:
            outer.append((v, leg.at(v - rise) + ease))
            inner.append((v, leg.at(v - rise) + ease))
    end = max(leg.at(length - rise) + 0.01 + bottom.flare, 0.024)
    outer.append((length, end))
    inner.append((length, end))
    halves = profile(*outer), profile(*inner)
    negative, positive = halves if side == RIGHT else halves[::-1]
    piece = canvas.tube((top, hip, knee, ankle), negative, positive)
    u = (piece.u + np.float32(sign * offset)) * _to_mean(figure)
    base = bottom.fabric.colour(u, piece.v + np.float32(WAISTBAND_V), canvas.scale)
    # The two halves meet on the middle seam: no roundness and no line there.
    below = limit((piece.v - crotch + 0.01) * 50)
    outside = (piece.u * sign > 0) + (piece.u * sign <= 0) * below
    dark = (roundness(piece, 0.17) + contour(piece)) * outside
    dark += 0.15 * crease(piece, (-sign * offset, crotch - 0.03), (-sign * offset, crotch), 0.005)
    for v, reach in ((crotch - 0.004, 0.05), (crotch + 0.012, 0.036)):
        dark += 0.12 * crease(piece, (-sign * (offset - 0.008), v), (-sign * (offset - reach), v - 0.016), 0.007)
    if bottom.hem > 0.75:
        dark += 0.1 * crease(piece, (sign * 0.02, rise + thigh + 0.012), (-sign * 0.01, rise + thigh + 0.002), 0.009)
        dark += 0.1 * crease(piece, (-sign * 0.02, length - 0.028), (sign * 0.006, length - 0.036), 0.008)
    if bottom.stitched:
        dark += 0.1 * _line(piece.u * sign - (wide - offset - 0.03), 0.003) * (piece.v < rise * 0.6)
    if not bottom.turnup:
        dark += 0.16 * _line(piece.v - (length - 0.011), _SEAM)
    canvas.paint(piece, shade(base, dark), Surface.PANTS)
    if bottom.turnup:
        _draw_band(canvas, piece, piece.v - (length - 0.024), darker(bottom.fabric.ground, -0.28), 0.0)


def _skirt(canvas: Canvas, figure: Figure, hem: float, flare: float, top_v: float) -> Piece:
    waist = figure.build.waist + 0.004
    return _hanging(canvas, figure, [(top_v, waist + 0.006), *_skirt_knots(figure, hem, flare)])


def _hanging(canvas: Canvas, figure: Figure, knots: list[Point]) -> Piece:
    """A piece along the spine that hangs straight down below the pelvis, with a rounded hem."""
    x, y = figure.pelvis
    middle = (figure.ankles[RIGHT][0] + figure.ankles[LEFT][0]) / 2
    piece = canvas.tube((figure.neck, figure.pelvis, (x + (middle - x) * 0.6, y + 0.3)), profile(*knots))
    return piece.cut(knots[-1][0] - 0.008 * piece.side * piece.side - piece.v)


def _skirt_knots(figure: Figure, hem: float, flare: float) -> list[Point]:
    """A skirt covers the legs as they stand; `flare` widens its hem."""
    stance = (figure.ankles[LEFT][0] - figure.ankles[RIGHT][0]) / 2
    hips = figure.build.hip + 0.006
    legs = 0.5 * (figure.build.hip * 0.52 + stance) + 0.036 * figure.build.limb + 0.012
    stop = hem - PELVIS_Y + TORSO
    return [(0.312, hips), (0.365, hips + 0.004 + 0.2 * flare), (stop, max(legs, hips) + flare)]


def _skirt_shade(piece: Piece, hem_v: float, pleats: int) -> Floats:
    fall = limit((piece.v - 0.33) * (1 / max(hem_v - 0.33, 0.05)))
    dark = (
        roundness(piece, 0.15) + contour(piece) + 0.16 * _line(piece.v + 0.008 * piece.side**2 - (hem_v - 0.011), _SEAM)
    )
    if pleats:
        return np.asarray(dark + 0.1 * fall * (0.4 + np.sin(piece.side * (np.pi * pleats))))
    return np.asarray(dark + 0.1 * fall * limit(np.sin(piece.side * 9 + 0.6)))


def _waist_knots(figure: Figure, ease: float) -> list[Point]:
    return [(WAISTBAND_V, figure.build.waist + ease + 0.006), (0.305, figure.build.hip + ease - 0.004)]


def _to_mean(figure: Figure) -> float:
    """Patterns stretch with the wearer: across, they are measured on the mean build."""
    return 0.09 / figure.build.hip


def _torso_folds(body: Piece) -> Floats:
    dark = 0.12 * crease(body, (0.074, ARMPIT_V + 0.01), (0.03, 0.12), 0.008)
    dark += 0.12 * crease(body, (-0.074, ARMPIT_V + 0.01), (-0.03, 0.12), 0.008)
    dark += 0.1 * crease(body, (0.066, WAIST_V + 0.004), (0.02, WAIST_V + 0.02), 0.008)
    return dark + 0.1 * crease(body, (-0.066, WAIST_V + 0.016), (-0.026, WAIST_V + 0.004), 0.008)


def _line(offset: Floats, width: float) -> Floats:
    """0..1: a soft line where `offset` is zero."""
    return limit(1 - np.abs(offset) * (2 / width))


def _neck_depth(body: Piece, neckline: Neckline) -> Floats:
    """Depth inside the opening of the neck; the garment is left where it is negative."""
    u, v = body.u, body.v
    match neckline:
        case Neckline.VEE:
            return (0.044 - np.abs(u) - v * 0.5) * 0.9
        case Neckline.COLLAR:
            return (0.034 - np.abs(u) - v * 0.55) * 0.9
        case Neckline.SCOOP:
            width, height = 0.056, 0.062
        case Neckline.ROLL:
            width, height = 0.03, 0.004
        case _:
            width, height = 0.043, 0.026
    return (1 - np.sqrt((u * (1 / width)) ** 2 + (v * (1 / height)) ** 2)) * min(width, height)


def _open_neck(body: Piece, neckline: Neckline) -> Piece:
    return body.cut(-_neck_depth(body, neckline))


def _open_armholes(body: Piece, figure: Figure) -> Piece:
    centre = figure.build.shoulder + 0.004
    a, b = (np.abs(body.u) - centre) * (1 / 0.034), (body.v - SHOULDER_V) * (1 / 0.06)
    return body.cut((np.sqrt(a * a + b * b) - 1) * 0.034)


def _draw_back_of_neck(canvas: Canvas, figure: Figure, neckline: Neckline, fabric: Fabric, surface: Surface) -> None:
    """The inside of the back, seen through the neck when a garment lies flat; a person's neck hides it."""
    if figure.head_angle == 0.0 and neckline not in (Neckline.ROLL, Neckline.HOOD):
        half = 0.05 if neckline is Neckline.SCOOP else 0.038
        inside = canvas.tube(figure.spine, profile((-0.002, half), (0.05, half)))
        inside = inside.cut(0.054 - 0.3 * np.abs(inside.u) - inside.v)
        inner = darker(fabric.ground, 0.34)
        canvas.paint(inside, shade(inner, 0.12 * _line(inside.v - 0.008, 0.005)), surface)


def _draw_neck(
    canvas: Canvas, figure: Figure, body: Piece, neckline: Neckline, fabric: Fabric, trim: Colour, surface: Surface
) -> None:
    """What goes around the neck: a trim, a collar, a hood or a roll."""
    if neckline in (Neckline.CREW, Neckline.VEE, Neckline.SCOOP):
        edge = -_neck_depth(body, neckline)
        canvas.paint(body.cut(0.0085 - edge), shade(trim, 0.25 * _line(edge - 0.008, 0.004)))
    elif neckline is Neckline.COLLAR:
        for sign in SIGNS:
            flap = [
                (sign * 0.026, -0.006),
                (sign * 0.046, 0.004),
                (sign * 0.05, 0.034),
                (sign * 0.004, 0.058),
                (sign * 0.014, 0.03),
            ]
            piece = canvas.blob(_torso_frame(figure), flap, smooth=False)
            base = darker(fabric.ground, -0.1) if fabric.ground != trim else trim
            canvas.paint(piece, shade(base, contour(piece, 0.005, 0.34)), surface)
    elif neckline is Neckline.HOOD:
        for sign in SIGNS:
            rim = [
                (sign * 0.03, -0.012),
                (sign * 0.052, -0.004),
                (sign * 0.062, 0.016),
                (sign * 0.04, 0.044),
                (0.0, 0.056),
                (0.0, 0.03),
                (sign * 0.024, 0.022),
                (sign * 0.032, 0.006),
            ]
            piece = canvas.blob(_torso_frame(figure), rim)
            canvas.paint(piece, shade(fabric.ground, 0.06 + contour(piece, 0.006, 0.3)), surface)
            cord = [figure.on_torso(sign * 0.018, 0.05), figure.on_torso(sign * 0.02, 0.085)]
            canvas.stroke(cord, 0.004, trim)
    else:
        roll = canvas.tube(
            (figure.on_torso(0, -0.02), figure.on_torso(0, 0.014)), profile((0.0, 0.034), (0.02, 0.036), (0.034, 0.042))
        )
        canvas.paint(
            roll,
            shade(
                fabric.ground, roundness(roll, 0.16) + contour(roll, 0.005, 0.3) + 0.12 * _line(roll.v - 0.018, 0.005)
            ),
            surface,
        )


def _torso_frame(figure: Figure) -> Frame:
    return turned(figure.neck, figure.lean)


def _draw_details(canvas: Canvas, figure: Figure, body: Piece, top: Top) -> None:
    line = darker(top.fabric.ground, 0.3)
    if top.buttons:
        _draw_buttons(canvas, figure, top.trim, TOP_HEM_V)
        if top.pocket:
            pocket = [(0.026, 0.1), (0.026, 0.128), (0.04, 0.136), (0.054, 0.128), (0.054, 0.1), (0.026, 0.1)]
            for start, stop in itertools.pairwise(pocket):
                canvas.stroke([figure.on_torso(*start), figure.on_torso(*stop)], 0.003, line, 0.7)
    elif top.pocket:
        pouch = [
            (-0.034, 0.2),
            (0.034, 0.2),
            (0.056, 0.252),
            (0.05, 0.296),
            (-0.05, 0.296),
            (-0.056, 0.252),
            (-0.034, 0.2),
        ]
        for start, stop in itertools.pairwise(pouch):
            canvas.stroke([figure.on_torso(*start), figure.on_torso(*stop)], 0.0032, line, 0.7)


def _draw_buttons(canvas: Canvas, figure: Figure, colour: Colour, stop_v: float) -> None:
    canvas.stroke(
        [figure.on_torso(0.009, 0.062), figure.on_torso(0.009, stop_v - 0.004)], 0.0028, darker(colour, 0.3), 0.5
    )
    for v in np.arange(0.08, stop_v - 0.02, 0.048):
        x, y = figure.on_torso(0.0, float(v))
        canvas.dot((x, y), 0.0048, (248, 242, 230) if sum(colour) < 420 else darker(colour, 0.45))


def _draw_band(canvas: Canvas, piece: Piece, inside: Floats, colour: Colour, ribs: float = 0.1) -> None:
    """A band of another colour over part of a piece, finely ribbed."""
    band = piece.cut(inside.astype(np.float32))
    dark = roundness(band, 0.16) + contour(band, 0.005, 0.26) + ribs * limit(np.sin(band.u * 520))
    canvas.paint(band, shade(colour, dark))
