"""Lets the background inside the mask continue what is outside.

A network paints a plain wall a shade lighter or darker than the photograph has it, and the mask's outline shows. The
difference is known where both sides of the outline are background; a membrane through it, spread over the background
inside and added there, takes the trace away and leaves all detail (Perez et al. 2003 call this seamless cloning).
"""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from fastfit_watch.engine.pixels import MASKED, Pixels

_BAND_PX = 6  # how far from the mask's edge the difference is taken: its mean there hides the pictures' grain
_SOFT_PX = 5  # over which the change ends inside the person's outline


class Blend(StrEnum):
    """How a made picture joins the photograph: as published, byte for byte, or with its background drawn level."""

    PUBLISHED = "published"
    SEAMLESS = "seamless"


def level_background(generated: Pixels, picture: Pixels, mask: Pixels, background: NDArray[np.bool_]) -> Pixels:
    """Bring the background of a made picture to the shade of the photograph around the mask.

    Parameters
    ----------
    generated, picture : uint8 (H, W, 3), the made picture and the photograph. mask : uint8 (H, W).
    background : (H, W), where the composed picture shows background.

    Returns
    -------
    uint8 (H, W, 3), `generated` changed inside the mask alone, and only where background is, or a few pixels away.
    """
    inside = mask >= MASKED
    reach = cv2.dilate(inside.astype(np.uint8), np.ones((2 * _BAND_PX + 1, 2 * _BAND_PX + 1), np.uint8)) > 0
    known = (reach & ~inside & background).astype(np.float32)
    if not known.any():
        return generated
    difference = (picture.astype(np.float32) - generated) * known[..., None]
    # It ends within the outline of the person, softly: short of it, a rim of the old shade would stay.
    ground = cv2.dilate(background.astype(np.uint8), np.ones((_SOFT_PX, _SOFT_PX), np.uint8))
    share = cv2.blur(ground.astype(np.float32), (_SOFT_PX, _SOFT_PX)) * inside
    changed = generated + _membrane(difference, known) * share[..., None]
    return np.asarray(np.clip(np.rint(changed), 0, 255), np.uint8)


def _membrane(values: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smooth values everywhere, (H, W, 3), from those that are known: pull and push (Gortler et al. 1996, section 3.4).

    values : zeros where `known`, (H, W), is 0; both are premultiplied shares otherwise.
    """
    height, width = known.shape
    if min(height, width) > 1:
        half = ((width + 1) // 2, (height + 1) // 2)
        coarse_values, coarse_known = (cv2.resize(each, half, interpolation=cv2.INTER_AREA) for each in (values, known))
        # A quarter that knows one value in four knows that value.
        scale = np.minimum(1, 4 * coarse_known) / np.maximum(coarse_known, 1e-6)
        coarse = _membrane(coarse_values * scale[..., None], coarse_known * scale)
        wide = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(values + (1 - known[..., None]) * wide, np.float32)
    total = max(float(known.sum()), 1e-6)
    return np.broadcast_to(values.sum((0, 1)) / total, values.shape).astype(np.float32)
