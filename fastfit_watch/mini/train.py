"""Train the `mini` bundle on drawn figures: parser, VAE, the FastFit-shaped UNet, and the decoder once more.

    python -m fastfit_watch.mini.train --out fastfit_watch/mini/weights --stages parser,vae --seconds 420
    python -m fastfit_watch.mini.train --out fastfit_watch/mini/weights --stages unet,decoder --seconds 540

The bundle itself is the checkpoint: run the same line again and each stage continues where its clock stopped, until it
has had its full time (`stage.PLAN_S`). Learning rates follow that clock, so pieces add up to one schedule.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.engine.networks.reference_attention import KeysValues, ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.parsers.mini import HEATMAP_STRIDE, LABEL_COUNTS
from fastfit_watch.mini.autoencoder import train_decoder, train_vae
from fastfit_watch.mini.buffers import Latents, Pictures, to_unit
from fastfit_watch.mini.drawing.figures import OUTFITS
from fastfit_watch.mini.feed import FIELD_OF, LookFeed, outfit_categories
from fastfit_watch.mini.networks import SCHEDULER_CONFIG, load_stage, read_json
from fastfit_watch.mini.recorded import Variant
from fastfit_watch.mini.stage import Piece, Stage

_DROP_REFERENCES = 0.1  # share of samples that train the unconditional half of guidance (Ho & Salimans 2022)
_OUTSIDE_WEIGHT = 0.15  # pixels outside the mask are composited from the original, so they matter less
_FULL_MASK = {True: 0.85, False: 0.2}  # share of samples, by whether the outfit is a whole one: as in evaluation
_WHOLE_OUTFITS = [outfit for outfit, _ in OUTFITS]
_SNR_LIMIT = 5.0
_CHUNK = {True: 32, False: 4}  # looks taken in at once between two steps, by whether there is a GPU


def train_parser(piece: Piece, feed: LookFeed) -> None:
    """Labels by cross-entropy, points by heat maps; pictures are shrunk, shifted and tinted at random."""
    fields = ["person", *LABEL_COUNTS, "points"]
    stage, looks = Stage("parser", piece), Pictures(feed, piece.device, fields, capacity=12_000)

    def loss_of(network: nn.Module, _: Variant) -> Tensor:
        batch = looks.sample(stage.batch, fields)
        picture, labels, heat = _augment(batch)
        logits, points = network(picture.to(stage.dtype))
        parts = logits.float().split(list(LABEL_COUNTS.values()), dim=1)
        loss = sum(functional.cross_entropy(part, label) for part, label in zip(parts, labels, strict=True))
        return loss + 20 * functional.binary_cross_entropy_with_logits(points.float(), heat)

    stage.run(loss_of, lambda: None, looks.refill)
    stage.save()


def _augment(batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Random scale 0.6 to 1.1, shift, brightness and noise; heat maps are drawn at the moved points."""
    picture = to_unit(batch["person"])
    count, _, height, width = picture.shape
    scale = torch.empty(count, device=picture.device).uniform_(0.6, 1.1)
    shift = torch.empty(count, 2, device=picture.device).uniform_(-1, 1) * (1 - scale).abs()[:, None]
    matrix = torch.zeros(count, 2, 3, device=picture.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale
    matrix[:, :, 2] = -shift / scale[:, None]
    grid = functional.affine_grid(matrix, list(picture.shape), align_corners=False)
    moved = functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)
    moved = moved * torch.empty(count, 1, 1, 1, device=moved.device).uniform_(0.85, 1.15) + 0.03 * torch.randn_like(
        moved
    )
    labels = [
        functional.grid_sample(batch[name][:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()
        for name in LABEL_COUNTS
    ]
    size = torch.cat([torch.full((1,), float(side), device=picture.device) for side in (width, height)])
    seen = batch["points"][..., 0] >= 0
    points = ((batch["points"] / size * 2 - 1) * scale[:, None, None] + shift[:, None] + 1) / 2 * size
    columns = (torch.arange(width // HEATMAP_STRIDE, device=picture.device) + 0.5) * HEATMAP_STRIDE
    rows = (torch.arange(height // HEATMAP_STRIDE, device=picture.device) + 0.5) * HEATMAP_STRIDE
    spread = 2 * (1.2 * HEATMAP_STRIDE) ** 2
    across = torch.exp(-((columns - points[..., :1]) ** 2) / spread)
    down = torch.exp(-((rows - points[..., 1:]) ** 2) / spread)
    return moved, labels, down[..., :, None] * across[..., None, :] * seen[..., None, None]


def train_unet(piece: Piece, feed: LookFeed) -> None:
    """Noise prediction (Ho et al. 2020) under the published mask, pose and references, some of them dropped."""
    device = piece.device
    vae = load_stage(piece.folder, "vae", device).eval().requires_grad_(False)
    scale = float(read_json(piece.folder / "vae" / "config.json")["scaling_factor"])
    looks = Latents(feed, vae, scale, device, capacity=20_000)
    signals = DDPMScheduler.from_config(SCHEDULER_CONFIG).alphas_cumprod.to(device)
    stage = Stage("unet", piece)

    def loss_of(network: nn.Module, variant: Variant) -> Tensor:
        code = cast(int, variant)
        batch = looks.sample(code, stage.batch)
        share = _FULL_MASK[set(outfit_categories(code)) in _WHOLE_OUTFITS]
        full = torch.rand(stage.batch, 1, 1, 1, device=device) < share
        mask, masked = (torch.where(full, batch[f"full_{name}"], batch[f"worn_{name}"]) for name in ("mask", "masked"))
        truth, noise = batch["truth"], torch.randn_like(batch["truth"])
        times = torch.randint(1000, (stage.batch,), device=device)
        signal = signals[times].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * truth + (1 - signal).sqrt() * noise
        kept = (torch.rand(stage.batch, 1, 1, 1, device=device) >= _DROP_REFERENCES).float()
        garments = {name: (batch[name] * kept).to(stage.dtype) for name in set(FIELD_OF.values())}
        references = _read_references(network, code, garments)  # type: ignore[arg-type]
        sample = torch.cat([noisy, mask, masked], dim=1).to(stage.dtype)
        guess = network.denoise(sample, times, references).float()  # type: ignore[operator]
        inside = functional.max_pool2d(mask, 3, 1, 1)
        weight = batch["emphasis"] * (inside + _OUTSIDE_WEIGHT * (1 - inside)) * _weight_of(signal)
        loss: Tensor = ((guess - noise) ** 2 * weight).sum() / (weight.sum() * noise.shape[1])
        return loss

    stage.run(loss_of, looks.choose, looks.refill)
    stage.save()


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


_TRAIN = {"parser": train_parser, "vae": train_vae, "unet": train_unet, "decoder": train_decoder}


def main() -> None:
    """Train the named stages for up to `--seconds` each; run again to continue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder: read if it exists, then written")
    parser.add_argument("--stages", default="parser,vae,unet,decoder")
    parser.add_argument("--seconds", type=float, default=1e9, help="limit for each stage in this run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=14, help="processes that draw")
    parser.add_argument("--seed", type=int, default=1, help="use another in every piece, for fresh figures")
    parser.add_argument("--plan-seconds", type=float, help="full time of a stage, if not the H200's")
    parser.add_argument("--batch", type=int, help="pictures in a batch, if not the stage's own number")
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between two checkpoints of a stage")
    options = parser.parse_args()
    limits = options.seconds, options.plan_seconds, options.batch, options.save_every
    piece = Piece(options.out, options.device, *limits)
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    with LookFeed(options.processes, options.seed * 10_000_000, _CHUNK[options.device.startswith("cuda")]) as feed:
        for name in options.stages.split(","):
            _TRAIN[name](piece, feed)


if __name__ == "__main__":
    main()
