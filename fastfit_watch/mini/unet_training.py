"""The UNet's stage of training: it learns to take noise out of the latents of dressed figures."""

from __future__ import annotations

from typing import cast

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.engine.networks.reference_attention import KeysValues, ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.mini.buffers import Latents
from fastfit_watch.mini.feed import FIELD_OF, WHOLE_OUTFITS, LookFeed, outfit_categories
from fastfit_watch.mini.networks import SCHEDULER_CONFIG, load_stage, read_json
from fastfit_watch.mini.recorded import Variant
from fastfit_watch.mini.stage import Piece, Stage
from fastfit_watch.mini.working_copy import working_copy

_DROP_REFERENCES = 0.1  # share of samples that train the unconditional half of guidance (Ho & Salimans 2022)
_OUTSIDE_WEIGHT = 0.15  # pixels outside the mask are composited from the original, so they matter less
_FULL_MASK = {True: 0.85, False: 0.2}  # share of samples, by whether the outfit is a whole one: as in evaluation
_SNR_LIMIT = 5.0
_UNEVEN = 0.25  # most that wide areas of noise have in common, in its own standard deviation
_BLOCK, _COMMON_WEIGHT = 4, 0.5  # cells whose errors are also compared as one


def train_unet(piece: Piece, feed: LookFeed) -> None:
    """Noise prediction (Ho et al. 2020) under the published mask, pose and references, some of them dropped."""
    device = piece.device
    vae = working_copy(load_stage(piece.folder, "vae", device).eval().requires_grad_(False), device)
    scale = float(read_json(piece.folder / "vae" / "config.json")["scaling_factor"])
    looks = Latents(feed, cast(AutoencoderKL, vae), scale, device)
    signals = DDPMScheduler.from_config(SCHEDULER_CONFIG).alphas_cumprod.to(device)
    stage = Stage("unet", piece)

    def loss_of(network: nn.Module, variant: Variant) -> Tensor:
        code = cast(int, variant)
        batch = looks.sample(code, stage.batch)
        share = _FULL_MASK[set(outfit_categories(code)) in WHOLE_OUTFITS]
        full = torch.rand(stage.batch, 1, 1, 1, device=device) < share
        mask, masked = (torch.where(full, batch[f"full_{name}"], batch[f"worn_{name}"]) for name in ("mask", "masked"))
        truth = batch["truth"]
        noise = _uneven_noise(truth)
        times = torch.randint(1000, (stage.batch,), device=device)
        signal = signals[times].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * truth + (1 - signal).sqrt() * noise
        kept = (torch.rand(stage.batch, 1, 1, 1, device=device) >= _DROP_REFERENCES).float()
        garments = {name: (batch[name] * kept).to(stage.dtype) for name in set(FIELD_OF.values())}
        references = _read_references(network, code, garments)  # type: ignore[arg-type]
        sample = torch.cat([noisy, mask, masked], dim=1).to(stage.dtype)
        guess = network.denoise(sample, times, references).float()  # type: ignore[operator]
        inside = functional.max_pool2d(mask, 3, 1, 1)
        weight = _with_edges(batch["emphasis"]) * (inside + _OUTSIDE_WEIGHT * (1 - inside)) * _weight_of(signal)
        error = guess - noise
        # Neighbouring errors of one sign are what the eye sees, and what most cells' own error hides.
        common = functional.avg_pool2d(error, _BLOCK) ** 2 * functional.avg_pool2d(weight, _BLOCK)
        total = (error**2 * weight).sum() + _COMMON_WEIGHT * _BLOCK**4 * common.sum()
        loss: Tensor = total / (weight.sum() * noise.shape[1])
        return loss

    stage.run(loss_of, looks.choose, looks.refill)
    stage.save()


def _with_edges(emphasis: Tensor) -> Tensor:
    """Twice the weight where a cell's neighbour is of another kind: hems, sleeves and outlines."""
    most, least = functional.max_pool2d(emphasis, 3, 1, 1), -functional.max_pool2d(-emphasis, 3, 1, 1)
    return emphasis * (1 + (most > least).float())


def _uneven_noise(like: Tensor) -> Tensor:
    """Standard normal noise, half of the samples' with a little more of one value over wide areas.

    So a network learns to take such values from what surrounds the mask, not from noisy latents, where earlier steps
    may have left them wrong ("offset noise", Guttenberg 2023).
    """
    count, channels = like.shape[:2]
    share = _UNEVEN * (2 * torch.rand(count, 1, 1, 1, device=like.device) - 1).clamp(min=0)
    noise = torch.randn_like(like) + share * torch.randn(count, channels, 1, 1, device=like.device)
    wide = torch.randn(count, channels, 6, 4, device=like.device)
    return noise + share * functional.interpolate(wide, size=like.shape[2:], mode="bilinear")


def _weight_of(signal: Tensor) -> Tensor:
    """Min-SNR weighting (Hang et al. 2023): steps of little noise, which are easy, do not drown the others."""
    return (_SNR_LIMIT * (1 - signal) / signal).clamp(max=1)


def _read_references(network: FastFitUNet, code: int, garments: dict[str, Tensor]) -> ReferenceCache:
    """Keys and values of every garment of the outfit, from latents by field; a dropped sample's are zeros."""
    caches = []
    for accessory in (False, True):  # garments of one size go through the network together
        slots = [slot for slot in outfit_categories(code) if slot.is_accessory is accessory]
        if slots:
            latents = torch.cat([garments[FIELD_OF[slot]] for slot in slots])
            count = len(latents) // len(slots)
            labels = torch.cat([torch.full((count,), slot.label, device=latents.device) for slot in slots])
            cache = network.read_reference(latents, labels)
            caches += [_take(cache, index * count, count) for index in range(len(slots))]
    return ReferenceCache.join(caches)


def _take(cache: ReferenceCache, first: int, count: int) -> ReferenceCache:
    """Rows of a cache."""
    rows = slice(first, first + count)
    return ReferenceCache(
        {name: KeysValues(layer.keys[rows], layer.values[rows]) for name, layer in cache.layers.items()}
    )
