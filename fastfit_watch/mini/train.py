"""Train the `mini` bundle on drawn figures: parser, VAE, the FastFit-shaped UNet, and the decoder once more.

    python -m fastfit_watch.mini.train --out fastfit_watch/mini/weights --stages parser,vae --seconds 420
    python -m fastfit_watch.mini.train --out fastfit_watch/mini/weights --stages unet,decoder --seconds 540

The bundle itself is the checkpoint: run the same line again and each stage continues where its clock stopped, until it
has had its full time (`stage.PLAN_S`). Learning rates follow that clock, so pieces add up to one schedule.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.engine.attention import KeysValues, ReferenceCache
from fastfit_watch.engine.mini_parser import HEATMAP_STRIDE, LABEL_COUNTS
from fastfit_watch.engine.unet import FastFitUNet
from fastfit_watch.mini.buffers import Latents, Pictures, to_unit
from fastfit_watch.mini.decoder import train_decoder
from fastfit_watch.mini.feed import FIELD_OF, LookFeed, outfit_categories
from fastfit_watch.mini.losses import picture_loss
from fastfit_watch.mini.networks import SCHEDULER_CONFIG, load_stage, read_json
from fastfit_watch.mini.stage import Piece, Stage

_KL_WEIGHT = 3e-4
_HINT_SHARE = 0.35  # of the VAE's training: later it is free to use its channels as it likes
_DROP_REFERENCES = 0.1  # share of samples that train the unconditional half of guidance (Ho & Salimans 2022)
_OUTSIDE_WEIGHT = 0.15  # pixels outside the mask are composited from the original, so they matter less
_REFILL_EVERY = 8  # encoding fresh looks costs as much as a step


def train_parser(piece: Piece, feed: LookFeed) -> None:
    """Labels by cross-entropy, points by heat maps; pictures are shrunk, shifted and tinted at random."""
    stage, looks = Stage("parser", piece), Pictures(feed, piece.device, capacity=400)
    looks.refill(wait_s=120)
    fields = ["person", *LABEL_COUNTS, "points"]

    def loss_of(network: nn.Module) -> Tensor:
        looks.refill()
        batch = looks.sample(stage.batch, fields)
        picture, labels, heat = _augment(batch)
        with torch.autocast(piece.device, torch.bfloat16):
            logits, points = network(picture)
        parts = logits.float().split(list(LABEL_COUNTS.values()), dim=1)
        loss = sum(functional.cross_entropy(part, label) for part, label in zip(parts, labels, strict=True))
        return loss + 20 * functional.binary_cross_entropy_with_logits(points.float(), heat)

    stage.run(loss_of)
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
    size = torch.tensor([width, height], device=picture.device)
    seen = batch["points"][..., 0] >= 0
    points = ((batch["points"] / size * 2 - 1) * scale[:, None, None] + shift[:, None] + 1) / 2 * size
    columns = (torch.arange(width // HEATMAP_STRIDE, device=picture.device) + 0.5) * HEATMAP_STRIDE
    rows = (torch.arange(height // HEATMAP_STRIDE, device=picture.device) + 0.5) * HEATMAP_STRIDE
    spread = 2 * (1.2 * HEATMAP_STRIDE) ** 2
    across = torch.exp(-((columns - points[..., :1]) ** 2) / spread)
    down = torch.exp(-((rows - points[..., 1:]) ** 2) / spread)
    return moved, labels, down[..., :, None] * across[..., None, :] * seen[..., None, None]


def train_vae(piece: Piece, feed: LookFeed) -> None:
    """Reconstruction by L1 on pixels and on their differences, SSIM, and a light KL (Kingma & Welling 2013)."""
    stage, looks = Stage("vae", piece), Pictures(feed, piece.device, capacity=700)
    looks.refill(wait_s=120)

    def loss_of(network: nn.Module) -> Tensor:
        if stage.steps % _REFILL_EVERY == 0:
            looks.refill()
        pictures = _vae_pictures(looks, stage.batch, stage.steps)
        with torch.autocast(piece.device, torch.bfloat16):
            posterior = network.encode(pictures).latent_dist  # type: ignore[operator]
            rebuilt = network.decode(posterior.sample()).sample.float()  # type: ignore[operator]
        spread = posterior.kl().float().mean() / posterior.mean[0].numel()
        hint = max(0.0, 1 - stage.done / _HINT_SHARE) * _colour_hint(posterior.mean.float(), pictures)
        loss: Tensor = picture_loss(rebuilt, pictures) + _KL_WEIGHT * spread + hint
        return loss

    stage.run(loss_of)
    vae = stage.averaged()
    with torch.no_grad():
        samples = to_unit(looks.sample(4 * stage.batch, ["truth"])["truth"])
        spread = float(vae.encode(samples).latent_dist.sample().std())  # type: ignore[operator]
        error = functional.mse_loss(vae.decode(vae.encode(samples).latent_dist.mean).sample, samples)  # type: ignore[operator]
    print(f"vae: latent std {spread:.3f}, PSNR {10 * math.log10(4 / float(error)):.2f} dB", flush=True)
    stage.save({"scaling_factor": round(1 / spread, 5)})


def _vae_pictures(looks: Pictures, count: int, step: int) -> Tensor:
    """What the VAE meets in use: people, masked people, garments; every fourth batch accessories at their own size.

    Batches have one size each, so that cuDNN's search for the fastest algorithm pays.
    """
    if step % 4 == 3:
        batch = looks.sample(2 * count, ["shoe", "bag", "outfit"])
        worn = torch.cat([batch["outfit"] >> 3 & 1, batch["outfit"] >> 4 & 1]) > 0
        return to_unit(torch.cat([batch["shoe"], batch["bag"]])[worn.nonzero()[:count, 0]])
    third = count // 3
    batch = looks.sample(count, ["person", "truth", "pose", "full", "cloth", "second", "outfit"])
    mask = (batch["full"][:third] >= 128).float()[:, None]
    pose = batch["pose"][:third].permute(0, 3, 1, 2).float() / 255
    masked = to_unit(batch["person"][:third]) * (1 - mask) + mask * pose
    worn = torch.cat([(batch["outfit"] & 5) > 0, (batch["outfit"] & 2) > 0])
    garments = torch.cat([batch["cloth"], batch["second"]])[worn.nonzero()[:third, 0]]
    return torch.cat([to_unit(batch["truth"][-third:]), masked, to_unit(garments)])


def _colour_hint(latents: Tensor, pictures: Tensor) -> Tensor:
    """Distance of the first three latent channels from the picture's own colours, in small.

    Without it a latent of four channels first learns light and dark alone, and takes long to find colour.
    """
    small = functional.avg_pool2d(pictures, pictures.shape[-1] // latents.shape[-1])
    return functional.mse_loss(latents[:, :3], 2 * small)


def train_unet(piece: Piece, feed: LookFeed) -> None:
    """Noise prediction (Ho et al. 2020) under the published mask, pose and references, some of them dropped."""
    device = piece.device
    vae = load_stage(piece.folder, "vae", device).eval().requires_grad_(False)
    scale = float(read_json(piece.folder / "vae" / "config.json")["scaling_factor"])
    looks = Latents(feed, vae, scale, device, capacity=20_000)
    looks.refill(wait_s=120)
    schedule = DDPMScheduler.from_config(SCHEDULER_CONFIG).alphas_cumprod.to(device)
    stage = Stage("unet", piece)

    def loss_of(network: nn.Module) -> Tensor:
        if stage.steps % _REFILL_EVERY == 0:
            looks.refill()
        code, batch = looks.sample(stage.batch)
        mode = "full" if torch.rand(()) < 0.65 else "worn"
        truth, mask = batch["truth"], batch[f"{mode}_mask"]
        noise, times = torch.randn_like(truth), torch.randint(1000, (len(truth),), device=device)
        signal = schedule[times].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * truth + (1 - signal).sqrt() * noise
        kept = (torch.rand(len(truth), 1, 1, 1, device=device) >= _DROP_REFERENCES).float()
        with torch.autocast(piece.device, torch.bfloat16):
            references = _read_references(network, code, batch, kept)  # type: ignore[arg-type]
            sample = torch.cat([noisy, mask, batch[f"{mode}_masked"]], dim=1)
            guess = network.denoise(sample, times, references).float()  # type: ignore[operator]
        inside = functional.max_pool2d(mask, 3, 1, 1)
        weight = inside + _OUTSIDE_WEIGHT * (1 - inside)
        loss: Tensor = ((guess - noise) ** 2 * weight).sum() / (weight.sum() * noise.shape[1])
        return loss

    stage.run(loss_of)
    stage.save()


def _read_references(network: FastFitUNet, code: int, batch: dict[str, Tensor], kept: Tensor) -> ReferenceCache:
    """Keys and values of every garment of the outfit; a dropped sample's garments are zero latents."""
    caches = []
    for accessory in (False, True):  # garments of one size go through the network together
        slots = [slot for slot in outfit_categories(code) if slot.is_accessory is accessory]
        if slots:
            latents = torch.cat([batch[FIELD_OF[slot]] * kept for slot in slots])
            labels = torch.tensor([slot.label for slot in slots], device=kept.device).repeat_interleave(len(kept))
            cache = network.read_reference(latents, labels)
            caches += [_take(cache, index * len(kept), len(kept)) for index in range(len(slots))]
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
    options = parser.parse_args()
    piece = Piece(options.out, options.device, options.seconds, options.plan_seconds, options.batch)
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    with LookFeed(options.processes, options.seed * 10_000_000) as feed:
        for name in options.stages.split(","):
            _TRAIN[name](piece, feed)


if __name__ == "__main__":
    main()
