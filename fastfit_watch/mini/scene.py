"""Where the person stands: a calm wall and floor with one large soft shape, and the shadow under the feet."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fastfit_watch.mini.body import LEFT, RIGHT, Figure
from fastfit_watch.mini.canvas import Canvas, Colour, Floats

WALLS: tuple[tuple[Colour, Colour], ...] = (  # wall, floor
    ((236, 226, 214), (214, 198, 182)),
    ((220, 230, 234), (192, 206, 214)),
    ((230, 224, 236), (206, 196, 216)),
    ((224, 234, 222), (196, 210, 192)),
    ((244, 224, 216), (222, 192, 182)),
    ((246, 236, 206), (224, 206, 164)),
    ((214, 226, 238), (186, 200, 220)),
    ((232, 232, 230), (206, 206, 204)),
    ((204, 222, 220), (172, 196, 196)),
)
TABLE: Colour = (226, 230, 235)  # what garments lie on


@dataclass(frozen=True)
class Scene:
    """A backdrop. Positions are shares of the picture's height; x counts from its middle."""

    wall: Colour
    floor: Colour
    horizon: float
    shape: int  # 0 none, 1 disc, 2 arch, 3 window of light
    centre: float
    radius: float


def choose_scene(rng: np.random.Generator) -> Scene:
    """Draw a backdrop."""
    wall, floor = WALLS[int(rng.integers(len(WALLS)))]
    tint = rng.normal(0, 3, 3)
    tinted = [
        tuple(float(np.clip(c + t, 0, 255)) for c, t in zip(colour, tint, strict=True)) for colour in (wall, floor)
    ]
    return Scene(
        (tinted[0][0], tinted[0][1], tinted[0][2]),
        (tinted[1][0], tinted[1][1], tinted[1][2]),
        float(rng.uniform(0.8, 0.87)),
        int(rng.integers(4)),
        float(rng.uniform(-0.1, 0.1)),
        float(rng.uniform(0.22, 0.3)),
    )


def draw_scene(scene: Scene, size: tuple[int, int]) -> Floats:
    """The backdrop, float32 (1, h, w, 3), 0..255."""
    height, width = size
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / height)[None, :]
    wall, floor = np.array(scene.wall, np.float32), np.array(scene.floor, np.float32)
    light = 1.03 - 0.07 * y
    column = np.where(
        y[..., None] < scene.horizon, wall * light[..., None], floor * (0.93 + 0.5 * (y - scene.horizon))[..., None]
    )
    picture = np.repeat(column.astype(np.float32), width, axis=1)
    depth = _shape_depth(scene, x, y)
    if depth is not None:
        alpha = np.clip(depth * height + 0.5, 0, 1) * np.where(y < scene.horizon, np.float32(0.5), np.float32(0.0))
        picture += alpha[..., None] * (np.minimum(wall * 1.07 + 6, 252) - picture)
    # The wall meets the floor in a thin light skirting, softly.
    line = np.clip(1 - np.abs(y - scene.horizon) * 220, 0, 1)
    picture += (0.5 * line)[..., None] * (np.minimum(wall + 10, 254) - picture)
    return picture[None]


def draw_shadow(canvas: Canvas, figure: Figure, scene: Scene) -> None:
    """The person's shadow on the floor; it does not depend on the clothes."""
    red, green, blue = scene.floor
    dark = red * 0.5, green * 0.5, blue * 0.56
    feet = figure.ankles
    middle = (feet[RIGHT][0] + feet[LEFT][0]) / 2
    y = max(feet[RIGHT][1], feet[LEFT][1]) + 0.058
    canvas.glow((middle + 0.02, y), ((feet[LEFT][0] - feet[RIGHT][0]) / 2 + 0.15, 0.026), dark, 0.55)
    for side, reach in ((RIGHT, -0.022), (LEFT, 0.022)):
        canvas.glow((feet[side][0] + reach, y + 0.004), (0.062, 0.014), dark, 0.6)


def lay_table(size: tuple[int, int]) -> Floats:
    """The light surface on which garments lie, float32 (1, h, w, 3)."""
    return np.full((1, *size, 3), TABLE, np.float32)


def cast_shadow(canvas: Canvas, shift: tuple[int, int], blur: float) -> None:
    """Put a soft shadow on the table around everything that has a label; call it after the garment is drawn."""
    seen = (canvas.surface[0] > 0).astype(np.float32)
    soft = cv2.GaussianBlur(np.roll(seen, shift, axis=(0, 1)), (0, 0), blur)
    alpha = (0.12 * soft * (1 - seen))[..., None]
    canvas.pixels *= 1 - alpha


def _shape_depth(scene: Scene, x: Floats, y: Floats) -> Floats | None:
    centre, radius = scene.centre, scene.radius
    match scene.shape:
        case 1:
            return radius - np.sqrt((x - centre) ** 2 + (y - 0.4) ** 2)
        case 2:
            above = radius - np.sqrt((x - centre) ** 2 + (y - 0.36) ** 2)
            return np.where(y < 0.36, above, radius - np.abs(x - centre))
        case 3:
            slanted = x - centre + 0.25 * (y - 0.4)
            pane = np.minimum(radius * 0.8 - np.abs(slanted), 0.28 - np.abs(y - 0.36))
            bars = np.minimum(np.abs(slanted), np.abs(y - 0.36)) - 0.008
            return np.asarray(np.minimum(pane, bars))
        case _:
            return None
