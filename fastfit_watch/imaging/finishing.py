"""Finishes a picture before it is saved: a visible label, the marks, and last of all a signature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.domain.finishing import Finishing
from fastfit_watch.domain.look import ImageFormat
from fastfit_watch.imaging.codec import encode_image
from fastfit_watch.imaging.content_credentials import sign_picture

if TYPE_CHECKING:
    from PIL import Image

_LABEL_SHARE = 45  # the picture's shorter side is so many times as long as the label's letters are high
_LEAST_LETTER = 11
_INK, _PAPER = (255, 255, 255), (0, 0, 0)
_OPACITY = 0.55


def finish_picture(
    image: Image.Image, format: ImageFormat, marks: Mapping[str, str], finish: Finishing, person: Path
) -> bytes:
    """Return the file of a result. Without a signature, equal arguments give equal bytes.

    Raises ConfigError, EngineError if it cannot be signed.
    """
    if finish.label:
        image, marks = draw_label(image, finish.label), {**marks, "label": finish.label}
    data = encode_image(image, format, marks)
    if finish.signing is None:
        return data
    return sign_picture(data, format, person.read_bytes(), marks.get("model", ""), finish.signing)


def draw_label(image: Image.Image, words: str) -> Image.Image:
    """Return a copy with `words` small in its lower right corner: white on a dark band, on any background legible."""
    from PIL import Image, ImageDraw, ImageFont

    letter = max(_LEAST_LETTER, min(image.size) // _LABEL_SHARE)
    font = ImageFont.load_default(letter)
    left, top, right, bottom = font.getbbox(words)
    gap = letter // 2
    width, height = int(right - left) + 2 * gap, int(bottom - top) + 2 * gap
    corner = (max(0, image.width - width), max(0, image.height - height))
    box = (*corner, image.width, image.height)
    labelled = image.convert("RGB")
    beneath = labelled.crop(box)
    band = Image.blend(beneath, Image.new("RGB", beneath.size, _PAPER), _OPACITY)
    ImageDraw.Draw(band).text((gap - left, gap - top), words, _INK, font)
    labelled.paste(band, box)
    return labelled
