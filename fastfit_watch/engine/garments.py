"""Garments: fitted to the model's sizes, encoded once, and read by the UNet into reference keys and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from fastfit_watch.engine.attention import ReferenceCache
from fastfit_watch.engine.geometry import Size, pad_to, stretch
from fastfit_watch.engine.sampling import Pixels, draw_posterior_noise, encode, to_tensor
from fastfit_watch.engine.unet import FastFitUNet
from fastfit_watch.errors import EngineError
from fastfit_watch.look import Category

_SAME_ASPECT = 0.02  # relative difference that stretching may hide


@dataclass(frozen=True)
class Reference:
    """One garment as the UNet reads it. latents: float32 (1, 4, h, w), scaled."""

    category: Category
    latents: Tensor


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


def encode_garments(
    vae: AutoencoderKL, garments: Mapping[Category, Image.Image], sizes: Mapping[Category, Size]
) -> tuple[Reference, ...]:
    """Encode the given garments, in `Category` order. Slots that are not given are never encoded.

    One at a time: the latents of a garment must not depend, not even by rounding, on what it is worn with.

    Raises
    ------
    EngineError : no garments, or one too narrow to fit.
    """
    if not garments:
        raise EngineError("The look has no garments.", hint="Give at least one of upper, lower, dress, shoe and bag.")
    return tuple(
        Reference(category, encode_garment(vae, category, garments[category], sizes[category]))
        for category in Category
        if category in garments
    )


def encode_garment(vae: AutoencoderKL, category: Category, image: Image.Image, size: Size) -> Tensor:
    """Encode one garment to scaled latents, float32 (1, 4, h, w). `image` is RGB, `size` (height, width)."""
    try:
        pixels = fit_garment(image, size)
    except ValueError as error:  # Pillow, asked for a side of 0 pixels
        raise EngineError(
            f"The picture for '{category}' is too narrow: {image.width} x {image.height} pixels.",
            hint="Crop the picture closer to the garment.",
        ) from error
    return encode(vae, to_tensor(pixels), partial(draw_posterior_noise, category, (pixels,)))


def read_references(unet: FastFitUNet, references: Sequence[Reference], guidance: float) -> ReferenceCache:
    """Read garments into one cache, rows [unconditional, conditional] where guidance is above 1.

    The unconditional row of a garment is a latent of zeros with the same label (section 2, step 8). Garments are read
    one at a time, so that the keys and values of each are the same bytes in every outfit.

    Raises
    ------
    ValueError : no references.
    """
    caches = []
    for reference in references:
        latents = reference.latents.to(unet.device, unet.dtype)
        rows = torch.cat([torch.zeros_like(latents), latents]) if guidance > 1 else latents
        labels = torch.full((rows.shape[0],), reference.category.label, device=unet.device)
        caches.append(unet.read_reference(rows, labels))
    return ReferenceCache.join(caches)
