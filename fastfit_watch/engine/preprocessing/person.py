"""The person to dress: framed to the model's size, parsed, and masked.

Two framings (FastFit inference specification, sections 2.4 and 3.1). `crop` cuts the centre to 3:4 and scales it to the
model's size, which is then the size of the result. `paste_back` parses the whole picture first, then cuts out the
region to repaint, so that the result returns into the full-size original.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fastfit_watch.domain.errors import ImageError
from fastfit_watch.domain.look import Category, Framing, MaskMode
from fastfit_watch.engine.parsers.parsing import HumanParser, Parsing
from fastfit_watch.engine.pixels import Pixels, Size
from fastfit_watch.engine.preprocessing.geometry import Adjustment, adjust, crop_to_ratio, restore, stretch
from fastfit_watch.engine.preprocessing.mask import agnostic_mask

_MASK_STEP_PX = 4  # masks are made on a quarter-size grid
_SMALLEST_SIDE_PX = 32


@dataclass(frozen=True)
class ParsedPerson:
    """A person before it is known what they will wear.

    Attributes
    ----------
    original : RGB, the whole picture.
    framing : how it will be cut.
    size : (height, width) the model works at.
    parsed : uint8 (h, w, 3), what was parsed: the framed picture (`crop`) or the whole one, smaller (`paste_back`).
    parsing : labels and pose of `parsed`.
    """

    original: Image.Image
    framing: Framing
    size: Size
    parsed: Pixels
    parsing: Parsing


@dataclass(frozen=True)
class PreparedPerson:
    """A person ready to be dressed; all arrays at the model's size (H, W).

    Attributes
    ----------
    picture : uint8 (H, W, 3), RGB.
    mask : uint8 (H, W), 255 where the picture is repainted, else 0.
    pose : uint8 (H, W, 3), RGB skeleton on black.
    original : RGB, the whole picture.
    adjustment : where `picture` was cut from `original`; None when the framed picture itself is the result.
    """

    picture: Pixels
    mask: Pixels
    pose: Pixels
    original: Image.Image
    adjustment: Adjustment | None

    def finish(self, picture: Pixels) -> Image.Image:
        """Turn a dressed picture, uint8 (H, W, 3), into the result: as it is, or pasted back into the original."""
        result = Image.fromarray(picture)
        return result if self.adjustment is None else restore(self.original, self.adjustment, result)


def parse_person(image: Image.Image, framing: Framing, parser: HumanParser, size: Size) -> ParsedPerson:
    """Find body parts, clothes and pose.

    Parameters
    ----------
    image : RGB, upright, at least 32 pixels on each side.
    size : (height, width) of the model, 3:4.

    Raises
    ------
    ImageError : the picture is too small, or so narrow that nothing is left of it.
    """
    crop = framing is Framing.CROP
    parsed_size = size if crop else _workable_size((image.height, image.width), longest=max(size))
    if min(*image.size, *parsed_size) < _SMALLEST_SIDE_PX:
        raise ImageError(
            f"The person's picture is too small or too narrow: {image.width} x {image.height} pixels.",
            hint="Use a larger picture that shows the whole person, at most ten times longer than wide.",
        )
    framed = stretch(crop_to_ratio(image) if crop else image, parsed_size)
    pixels = np.asarray(framed)
    return ParsedPerson(image, framing, size, pixels, parser.parse(pixels))


def mask_person(person: ParsedPerson, categories: Collection[Category], mode: MaskMode) -> PreparedPerson:
    """Decide what is repainted, and cut the picture accordingly.

    Raises
    ------
    EngineError : nobody, or nothing of what is to be repainted, was found in the picture.
    """
    mask = agnostic_mask(person.parsing, categories, mode)
    if person.framing is Framing.CROP:
        return PreparedPerson(person.parsed, mask, person.parsing.pose, person.original, None)
    # Mask and pose go through the very same cut as the picture, or they would no longer lie over the person.
    whole_mask = Image.fromarray(mask).resize(person.original.size, Image.Resampling.NEAREST)
    whole_pose = stretch(Image.fromarray(person.parsing.pose), (person.original.height, person.original.width))
    adjustment = adjust(person.original, whole_mask, person.size)
    return PreparedPerson(
        np.asarray(adjustment.crop),
        np.asarray(adjustment.crop_mask),
        np.asarray(adjust(whole_pose, whole_mask, person.size).crop),
        person.original,
        adjustment,
    )


def _workable_size(size: Size, longest: int) -> Size:
    """Return a size of nearly the same shape, no side above `longest`, sides that are multiples of 4."""
    scale = min(1.0, longest / max(size))
    height, width = (int(side * scale) // _MASK_STEP_PX * _MASK_STEP_PX for side in size)
    return height, width
