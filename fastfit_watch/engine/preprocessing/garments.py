"""Garments: fitted to the model's sizes, encoded once, and read by the UNet into reference keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.domain.look import Category
from fastfit_watch.engine.cache import HitList, Key
from fastfit_watch.engine.noise import posterior_seed
from fastfit_watch.engine.pixels import Pixels, Size
from fastfit_watch.engine.preprocessing.geometry import pad_to, stretch
from fastfit_watch.engine.preprocessing.picture import Picture

_SAME_ASPECT = 0.02  # relative difference that stretching may hide


def fit_garment(image: Image.Image, size: Size) -> Pixels:
    """Bring a garment's picture to (height, width): uint8 (H, W, 3).

    Fitted whole, centred on white, as the model's ComfyUI nodes do (FastFit inference specification, section 3.1). The
    published app stretches instead, which turns a square picture of a shirt into a tall one: prints and proportions
    suffer, and flat-lays stand on white anyway. A picture within 2 % of the wanted aspect is stretched, since a
    hairline of white helps nobody.
    """
    height, width = size
    aspect = (image.width / image.height) / (width / height)
    fitted = stretch(image, size) if abs(aspect - 1) <= _SAME_ASPECT else pad_to(image, size)
    return np.asarray(fitted)


@dataclass(frozen=True)
class FittedGarment:
    """A garment on its way to the model's size.

    key : of its latents. fitted : waits for its pixels, uint8 (H, W, 3), and the seed of its posterior noise.
    """

    category: Category
    digest: str
    key: Key | None
    fitted: Callable[[], tuple[Pixels, int]]


@contextmanager
def fit_garments(
    garments: Mapping[Category, Image.Image | Picture], sizes: Mapping[Category, Size], hits: HitList
) -> Iterator[tuple[FittedGarment, ...]]:
    """Open and fit the given garments, in `Category` order, beside what the enclosed block does.

    Those whose latents were kept are opened only if they are asked for after all.

    Raises
    ------
    EngineError : no garments, or, when its pixels are asked for, one too narrow to fit.
    """
    if not garments:
        raise EngineError("The look has no garments.", hint="Give at least one of upper, lower, dress, shoe and bag.")
    fitted = []
    with ThreadPoolExecutor(len(garments)) as threads:
        for category in [slot for slot in Category if slot in garments]:
            picture, size = Picture.of(garments[category]), sizes[category]
            key, fit = picture.key("latents", category, size), partial(_open_and_fit, category, picture, size)
            wait = fit if hits.holds(key) else threads.submit(fit).result
            fitted.append(FittedGarment(category, picture.digest, key, wait))
        yield tuple(fitted)


def _open_and_fit(category: Category, picture: Picture, size: Size) -> tuple[Pixels, int]:
    image = picture.open()
    try:
        pixels = fit_garment(image, size)
        # Here, beside the person's parsing: the device is not to wait for a digest of megabytes.
        return pixels, posterior_seed(category, (pixels,))
    except ValueError as error:  # Pillow, asked for a side of 0 pixels
        raise EngineError(
            f"The picture for '{category}' is too narrow: {image.width} x {image.height} pixels.",
            hint="Crop the picture closer to the garment.",
        ) from error
