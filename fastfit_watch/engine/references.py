"""Encodes garments and reads them into keys and values that every step attends to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fastfit_watch.domain.look import Category
from fastfit_watch.engine.autoencoding import Autoencoder, encode
from fastfit_watch.engine.cache import HitList, Key
from fastfit_watch.engine.fused.unet import FusedUNet
from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.noise import draw_seeded
from fastfit_watch.engine.pixels import Pixels, to_tensor
from fastfit_watch.engine.preprocessing.garments import FittedGarment


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


def encode_garments(vae: Autoencoder, garments: Sequence[FittedGarment], hits: HitList) -> tuple[Reference, ...]:
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


def _encode_fitted(vae: Autoencoder, fitted: Callable[[], tuple[Pixels, int]]) -> Tensor:
    pixels, seed = fitted()
    return encode(vae, to_tensor(pixels, vae.device), partial(draw_seeded, seed))


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


def read_reference_rows(
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
