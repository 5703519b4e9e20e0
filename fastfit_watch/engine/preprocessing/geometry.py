"""Crops, fits and the way back into the original picture. Pillow RGB images in and out.

Source of the arithmetic: FastFit inference specification, sections 2.4 and 3.1. It is kept to the last rounding: sizes
are floored where the model's own preparation floored them. Sizes are (height, width); boxes are Pillow's own order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.engine.pixels import Size

Picture = Image.Image
_WHOLE_PX = 2**26  # largest scaled picture made whole: 256 MB


class Box(NamedTuple):
    """Half-open pixel rectangle; may leave the picture."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Adjustment:
    """A crop around the region to repaint, cut from the picture as it would be when scaled to `scaled_size`.

    Attributes
    ----------
    mask : L, the mask of the whole picture, unscaled.
    surroundings : the box before rounding: left, top, right, bottom in pixels of the unscaled picture.
    scaled_size : (height, width) of the whole picture after scaling; `stretch` makes it where it is needed.
    crop : RGB, exactly the wanted size; black where the box leaves the scaled picture.
    crop_mask : L, the mask of that crop; 0 where the box leaves the scaled picture.
    box : the crop's place in the scaled picture.
    """

    mask: Picture
    surroundings: tuple[float, float, float, float]
    scaled_size: Size
    crop: Picture
    crop_mask: Picture
    box: Box


def stretch(image: Picture, size: Size) -> Picture:
    """Resize to (height, width) with Lanczos; the aspect ratio is not kept."""
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS)


def ratio_box(size: Size, ratio: float = 3 / 4) -> Box:
    """Return the largest centred box of width / height = `ratio` in a picture of `size` (height, width)."""
    height, width = size
    if width / height > ratio:
        kept = int(height * ratio)
        left = (width - kept) // 2
        return Box(left, 0, left + kept, height)
    kept = int(width / ratio)
    top = (height - kept) // 2
    return Box(0, top, width, top + kept)


def crop_to_ratio(image: Picture, ratio: float = 3 / 4) -> Picture:
    """Crop the centre to width / height = `ratio`."""
    return image.crop(ratio_box((image.height, image.width), ratio))


def pad_to(image: Picture, size: Size) -> Picture:
    """Fit whole into (height, width): resize with Lanczos, centre on white."""
    height, width = size
    if image.width / image.height < width / height:
        inner = image.width * height // image.height, height
    else:
        inner = width, image.height * width // image.width
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    canvas.paste(stretch(image, (inner[1], inner[0])), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def adjust(image: Picture, mask: Picture, size: Size, padding: float = 0.05) -> Adjustment:
    """Cut out the masked region with some surroundings, at `size` (FastFit inference specification, section 2.4).

    Parameters
    ----------
    image : RGB, the whole picture.
    mask : L, same size; every pixel above 0 counts.
    size : (height, width) of the crop.
    padding : greatest surroundings on each side, as a share of the region.

    Raises
    ------
    EngineError : the mask is empty.
    """
    mask = mask.convert("L")
    region = mask.getbbox()
    if region is None:
        raise EngineError("The mask is empty: there is nothing to repaint in this picture.")
    height, width = size
    surroundings = _surround(Box(*region), (image.height, image.width), width / height, padding)
    left, top, right, _ = surroundings
    # Only the width fixes the scale, so the crop may end a little outside the scaled picture.
    scale = width / (right - left)
    scaled_size = int(image.height * scale), int(image.width * scale)
    box = Box(int(left * scale), int(top * scale), int(left * scale) + width, int(top * scale) + height)
    crop, crop_mask = _crop_of_scaled(image, scaled_size, box), _crop_of_scaled_mask(mask, scaled_size, box)
    return Adjustment(mask, surroundings, scaled_size, crop, crop_mask, box)


def paste_back(scaled: Picture, result: Picture, box: Box, feather_px: float = 50) -> Picture:
    """Paste a repainted crop into the scaled picture as the model's authors do (section 2.4); the size is `scaled`'s.

    The crop also fades where it meets the border of the picture; `restore` does not do that.
    """
    feather = box_feather((scaled.height, scaled.width), box, feather_px)
    pasted = scaled.copy()
    pasted.paste(result, (box.left, box.top))
    return Image.composite(pasted, scaled, feather)


def box_feather(size: Size, box: Box, feather_px: float = 50) -> Picture:
    """Return the weights of `paste_back`: L at `size`, 255 inside the box, then Pillow's Gaussian blur."""
    weights = Image.new("L", (size[1], size[0]), 0)
    weights.paste(255, box)
    return weights.filter(ImageFilter.GaussianBlur(feather_px))


def restore(original: Picture, adjustment: Adjustment, result: Picture, feather_px: float = 50) -> Picture:
    """Paste a repainted crop into the original, at the original's own size.

    The original is never resampled: the crop is brought to its size, and every pixel outside the box keeps its exact
    value. Inside, the crop fades in from the box's sides with the Gaussian of `paste_back`, with two differences. A
    side that lies on the picture's border does not fade. And masked pixels do not fade, or the old clothes would
    shine through at the rim of the new ones.

    Parameters
    ----------
    original : RGB, the picture that was adjusted.
    adjustment : what `adjust` returned for it.
    result : RGB, the repainted crop, same size as `adjustment.crop`.
    feather_px : standard deviation of the fade, in pixels of the crop, above 0.

    Returns
    -------
    RGB, same size as `original`.
    """
    box, (scaled_height, scaled_width) = adjustment.box, adjustment.scaled_size
    left, top, right, bottom = adjustment.surroundings
    across = _Axis(box.left, box.right, scaled_width, original.width, left <= 0, right >= original.width)
    down = _Axis(box.top, box.bottom, scaled_height, original.height, top <= 0, bottom >= original.height)
    place = Box(across.start, down.start, across.stop, down.stop)
    if place.right <= place.left or place.bottom <= place.top:
        return original.copy()
    fade = np.outer(down.fade(feather_px).astype(np.uint16), across.fade(feather_px)) // 255
    masked = adjustment.mask.crop(place).point(lambda value: 255 if value else 0)
    weights = ImageChops.lighter(Image.fromarray(fade.astype(np.uint8)), masked)
    restored = original.copy()
    restored.paste(_resample(result, across, down), place, weights)
    return restored


@dataclass(frozen=True)
class _Axis:
    """One axis of `restore`: the crop is `low`..`high` of `scaled` pixels that stand for the original's `length`.

    A side that touches the border reaches it, although rounding may have left the crop a little short of it.
    """

    low: int
    high: int
    scaled: int
    length: int
    touches_start: bool
    touches_end: bool

    @property
    def start(self) -> int:
        """First original pixel that lies wholly in the crop."""
        return 0 if self.touches_start else max(0, -(-self.low * self.length // self.scaled))

    @property
    def stop(self) -> int:
        """One past the last such pixel."""
        return self.length if self.touches_end else min(self.length, self.high * self.length // self.scaled)

    @property
    def source(self) -> tuple[float, float]:
        """Where `start` and `stop` lie, in pixels of the crop."""
        return self.start * self.scaled / self.length - self.low, self.stop * self.scaled / self.length - self.low

    def fade(self, feather_px: float) -> NDArray[np.uint8]:
        """Weights 0..255 of the original pixels: the crop's extent blurred by a Gaussian, but not at the border."""
        centres = (np.arange(self.start, self.stop) + 0.5) * self.scaled / self.length
        rise = np.ones_like(centres) if self.touches_start else _normal_below((centres - self.low) / feather_px)
        fall = np.zeros_like(centres) if self.touches_end else _normal_below((centres - self.high) / feather_px)
        return np.rint((rise - fall) * 255).astype(np.uint8)


def _normal_below(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative normal distribution: a step, blurred by a Gaussian."""
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in deviations])


def _resample(result: Picture, across: _Axis, down: _Axis) -> Picture:
    """Resize the crop to the original's pixels with Lanczos; beyond its sides the outermost pixels repeat."""
    (left, right), (top, bottom) = across.source, down.source
    margin = math.ceil(max(0.0, -left, -top, right - result.width, bottom - result.height))
    padded = Image.fromarray(np.pad(np.asarray(result), ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    source = (left + margin, top + margin, right + margin, bottom + margin)
    size = (across.stop - across.start, down.stop - down.start)
    return padded.resize(size, Image.Resampling.LANCZOS, box=source)


def _surround(region: Box, size: Size, ratio: float, padding: float) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the box around `region`: steps 2 to 4 of section 2.4."""
    height, width = size
    region_width, region_height = region.right - region.left, region.bottom - region.top
    box_width = max(region_height * ratio, region_width)
    box_height = max(region_width / ratio, region_height)
    middle_x, middle_y = (region.left + region.right) / 2, (region.top + region.bottom) / 2
    left, right = middle_x - box_width / 2, middle_x + box_width / 2
    top, bottom = middle_y - box_height / 2, middle_y + box_height / 2

    # Negative where the box is larger than the picture: then it shrinks.
    share = min(padding, (left + width - right) / (2 * box_width), (top + height - bottom) / (2 * box_height))
    grow_x, grow_y = int(box_width * share), int(box_height * share)
    left, top, right, bottom = left - grow_x, top - grow_y, right + grow_x, bottom + grow_y

    if left < 0:
        left, right = 0, right - left
    if top < 0:
        top, bottom = 0, bottom - top
    if right > width:
        left, right = left - (right - width), width
    if bottom > height:
        top, bottom = top - (bottom - height), height
    return left, top, right, bottom


def _crop_of_scaled(image: Picture, scaled_size: Size, box: Box) -> Picture:
    """Return `stretch(image, scaled_size).crop(box)`.

    A small region of a large picture scales it to billions of pixels. Past `_WHOLE_PX` only the box is made. Pillow may
    then run its two passes in the other order, which changes rounding: by a level or two, more at hard black and white
    edges.
    """
    height, width = scaled_size
    if height * width <= _WHOLE_PX:
        return stretch(image, scaled_size).crop(box)
    left, top, right, bottom = max(0, box.left), max(0, box.top), min(width, box.right), min(height, box.bottom)
    across, down = image.width, image.height
    source = (left * across / width, top * down / height, right * across / width, bottom * down / height)
    piece = image.resize((right - left, bottom - top), Image.Resampling.LANCZOS, box=source)
    return piece.crop((box.left - left, box.top - top, box.right - left, box.bottom - top))


def _crop_of_scaled_mask(mask: Picture, scaled_size: Size, box: Box) -> Picture:
    """Return the nearest-neighbour counterpart of `_crop_of_scaled`: exact, whatever the size."""
    rows = _nearest_sources(mask.height, scaled_size[0], box.top, box.bottom)
    columns = _nearest_sources(mask.width, scaled_size[1], box.left, box.right)
    outside = np.pad(np.asarray(mask), ((0, 1), (0, 1)))  # index -1 is a row or column of zeros
    return Image.fromarray(outside[rows[:, None], columns])


def _nearest_sources(length: int, scaled: int, start: int, stop: int) -> NDArray[np.int32]:
    """Return which of `length` pixels Pillow takes for scaled pixels `start`..`stop`; -1 outside."""
    ramp = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    sources = np.asarray(ramp.resize((scaled, 1), Image.Resampling.NEAREST))[0]
    inside = sources[max(start, 0) : max(stop, 0)]
    found = np.full(stop - start, -1, np.int32)
    found[max(-start, 0) : max(-start, 0) + inside.size] = inside
    return found
