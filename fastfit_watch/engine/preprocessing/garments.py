"""Garments: fitted to the model's sizes, encoded once, and read by the UNet into reference keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.domain.look import Category
from fastfit_watch.engine.cache import HitList, Key
from fastfit_watch.engine.fused.unet import FusedUNet
from fastfit_watch.engine.fused.vae import FusedVAE
from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.plain_denoiser import Pixels, draw_seeded, encode, posterior_seed, to_tensor, work_device
from fastfit_watch.engine.preprocessing.geometry import Size, pad_to, stretch
from fastfit_watch.engine.preprocessing.picture import Picture

_SAME_ASPECT = 0.02  # relative difference that stretching may hide


@dataclass(frozen=True)
class Reference:
    """One garment as the UNet reads it.

    latents : float32 (1, 4, h, w), scaled. digest : SHA-256 of its file; empty if unknown.
    """

    category: Category
    latents: Tensor
    digest: str = ""

    def key(self, use: str) -> Key | None:
        """The name under which what is made of these latents may be kept."""
        return (use, self.digest, self.category, *self.latents.shape[2:]) if self.digest else None


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


def encode_garments(
    vae: AutoencoderKL | FusedVAE, garments: Sequence[FittedGarment], hits: HitList
) -> tuple[Reference, ...]:
    """Encode the given garments. Slots that are not given are never encoded.

    One at a time: the latents of a garment must not depend, not even by rounding, on what it is worn with.

    Raises
    ------
    EngineError : one is too narrow to fit.
    """
    references = []
    for garment in garments:
        make = partial(_encode_fitted, vae, garment.fitted)
        references.append(Reference(garment.category, hits.fetch("garment", garment.key, make), garment.digest))
    return tuple(references)


def encode_garment(vae: AutoencoderKL | FusedVAE, category: Category, image: Image.Image, size: Size) -> Tensor:
    """Encode one garment to scaled latents, float32 (1, 4, h, w). `image` is RGB, `size` (height, width)."""
    return _encode_fitted(vae, partial(_open_and_fit, category, Picture.of(image), size))


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


def _encode_fitted(vae: AutoencoderKL | FusedVAE, fitted: Callable[[], tuple[Pixels, int]]) -> Tensor:
    pixels, seed = fitted()
    return encode(vae, to_tensor(pixels, work_device(vae)), partial(draw_seeded, seed))


def read_references(
    unet: FastFitUNet, references: Sequence[Reference], guidance: float, *, halves: bool = False
) -> ReferenceCache:
    """Read garments into one cache, rows [unconditional, conditional] where guidance is above 1.

    The unconditional row of a garment is a latent of zeros with the same label (section 2, step 8). Garments are read
    one at a time, so that the keys and values of each are the same bytes in every outfit. With `halves`, its rows are
    read one after the other, too: half the memory, the same but for rounding.

    Raises
    ------
    ValueError : no references.
    """
    caches = []
    for reference in references:
        latents = reference.latents.to(unet.dtype)
        rows = torch.cat([torch.zeros_like(latents), latents]) if guidance > 1 else latents
        labels = torch.full((rows.shape[0],), reference.category.label, device=rows.device)
        parts = zip(rows.chunk(len(rows)), labels.chunk(len(rows)), strict=True) if halves else [(rows, labels)]
        caches.append(ReferenceCache.stack([unet.read_reference(*part) for part in parts]))
    return ReferenceCache.join(caches)


def read_rows(
    unet: FusedUNet, references: Sequence[Reference], guidance: float, hits: HitList
) -> list[tuple[ReferenceCache, ReferenceCache]]:
    """Read each garment into its unconditional and its conditional row, on their own.

    The unconditional row depends on slot and size alone (section 2, step 8), the conditional one on the garment alone:
    both may be kept. Without guidance the first is not needed, and the second stands in its place. A row that does not
    fit on the device any more is dropped: to read it again is quicker than to bring it back.
    """
    pairs = []
    for reference in references:
        category, latents = reference.category, reference.latents
        size = latents.shape[2], latents.shape[3]
        read = partial(_read_row, unet, category, latents)
        conditional = hits.fetch("keys", reference.key("row"), read, movable=False)
        unconditional = conditional
        if guidance > 1:
            read = partial(unet.read_nothing, size, category.label)
            unconditional = hits.fetch("", ("empty row", category, *size), read, movable=False)
        pairs.append((unconditional, conditional))
    return pairs


def _read_row(unet: FusedUNet, category: Category, latents: Tensor) -> ReferenceCache:
    return unet.read_reference(latents, torch.full((1,), category.label, device=latents.device))
