"""Train the `mini` bundle on drawn figures: parser, VAE, then the FastFit-shaped UNet.

    python -m fastfit_watch.mini.train --out fastfit_watch/mini/weights --stages parser,vae --seconds 420
    python -m fastfit_watch.mini.train --out fastfit_watch/mini/weights --stages unet --seconds 540

The bundle itself is the checkpoint: run the same line again and each stage continues where its clock stopped, until it
has had its full time (`PLAN_S`). Learning rates follow that clock, so pieces add up to one schedule.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.engine.attention import KeysValues, ReferenceCache
from fastfit_watch.engine.mini_parser import HEATMAP_STRIDE, LABEL_COUNTS
from fastfit_watch.engine.unet import FastFitUNet
from fastfit_watch.mini.buffers import Latents, Pictures, to_unit
from fastfit_watch.mini.feed import FIELD_OF, LookFeed, outfit_categories
from fastfit_watch.mini.networks import SCHEDULER_CONFIG, load_stage, read_json, save_stage

PLAN_S = {"parser": 70.0, "vae": 160.0, "unet": 330.0}  # full training time of each stage on one H200
_BATCH = {"parser": 96, "vae": 66, "unet": 128}
_PEAK_RATE = {"parser": 2e-3, "vae": 1e-3, "unet": 7e-4}
_EMA_DECAY = {"parser": 0.99, "vae": 0.995, "unet": 0.9993}
_KL_WEIGHT = 3e-4
_HINT_SHARE = 0.35  # of the VAE's training: later it is free to use its channels as it likes
_DROP_REFERENCES = 0.1  # share of samples that train the unconditional half of guidance (Ho & Salimans 2022)
_OUTSIDE_WEIGHT = 0.15  # pixels outside the mask are composited from the original, so they matter less
_WARMUP_STEPS = 100
_REPORT_EVERY = 200
_REFILL_EVERY = 8  # encoding fresh looks costs as much as a step


class Stage:
    """The clock, optimiser and moving average that the three trainings share."""

    def __init__(self, name: str, folder: Path, device: str, seconds: float) -> None:
        self.name, self.folder, self.device = name, folder, device
        self.network = load_stage(folder, name, device)
        self._log = folder / "training.json"
        record = read_json(self._log).get(name, {"seconds": 0.0, "steps": 0})
        self._before_s, self.steps = float(record["seconds"]), int(record["steps"])
        self._seconds = min(seconds, PLAN_S[name] - self._before_s)
        weights = self.network.state_dict()
        self._current, self._average = list(weights.values()), {name: value.clone() for name, value in weights.items()}
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.01, fused=device == "cuda"
        )
        self._started_s = time.monotonic()
        self.used_s = 0.0

    def run(self, loss_of: Callable[[nn.Module], Tensor]) -> None:
        """Take steps on `loss_of(network)` until the time of this piece or of the whole stage is used up."""
        if self._seconds <= 0:
            return
        self.network.train()
        self._started_s = time.monotonic()
        total, counted = 0.0, 0
        for step in self._clock():
            loss = loss_of(self.network)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate(step)
            self._optimiser.step()
            self._follow(step)
            if step % 20 == 0:
                total, counted = total + float(loss.detach()), counted + 1
            if step % _REPORT_EVERY == 0:
                print(f"{self.name} step {self.steps} {self.used_s:6.0f} s loss {total / counted:.4f}", flush=True)
                total, counted = 0.0, 0

    def save(self, extra: dict[str, float] | None = None) -> None:
        """Write the averaged weights and this stage's clock."""
        save_stage(self.folder, self.name, self._average, extra)
        record = read_json(self._log)
        record[self.name] = {"seconds": round(self._before_s + self.used_s, 1), "steps": self.steps}
        self._log.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def averaged(self) -> nn.Module:
        """The network with its averaged weights, for use by the next stage."""
        self.network.load_state_dict(self._average)
        return self.network.eval()

    def _clock(self) -> Iterator[int]:
        step = 0
        while self.used_s < self._seconds:
            yield step
            step, self.steps = step + 1, self.steps + 1
            self.used_s = time.monotonic() - self._started_s

    @property
    def done(self) -> float:
        """Share of the stage's whole plan that is over, 0..1."""
        return min(1.0, (self._before_s + self.used_s) / PLAN_S[self.name])

    def _rate(self, step: int) -> float:
        """Cosine over the stage's whole plan, with a short warm-up in every piece (its optimiser starts anew)."""
        return (
            _PEAK_RATE[self.name]
            * min(1.0, (step + 1) / _WARMUP_STEPS)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.done)))
        )

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        decay = min(_EMA_DECAY[self.name], (1 + self.steps) / (10 + self.steps)) if step or self._before_s else 0.0
        torch._foreach_lerp_(list(self._average.values()), self._current, 1 - decay)


def train_parser(folder: Path, feed: LookFeed, device: str, seconds: float) -> None:
    """Labels by cross-entropy, points by heat maps; pictures are shrunk, shifted and tinted at random."""
    stage, looks = Stage("parser", folder, device, seconds), Pictures(feed, device, capacity=400)
    looks.refill(wait_s=120)
    fields = ["person", *LABEL_COUNTS, "points"]

    def loss_of(network: nn.Module) -> Tensor:
        looks.refill()
        batch = looks.sample(_BATCH["parser"], fields)
        picture, labels, heat = _augment(batch)
        with torch.autocast(device, torch.bfloat16):
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


def train_vae(folder: Path, feed: LookFeed, device: str, seconds: float) -> None:
    """Reconstruction by L1 on pixels and on their differences, SSIM, and a light KL (Kingma & Welling 2013)."""
    stage, looks = Stage("vae", folder, device, seconds), Pictures(feed, device, capacity=700)
    looks.refill(wait_s=120)

    def loss_of(network: nn.Module) -> Tensor:
        if stage.steps % _REFILL_EVERY == 0:
            looks.refill()
        pictures = _vae_pictures(looks, stage.steps)
        with torch.autocast(device, torch.bfloat16):
            posterior = network.encode(pictures).latent_dist  # type: ignore[operator]
            rebuilt = network.decode(posterior.sample()).sample.float()  # type: ignore[operator]
        spread = posterior.kl().float().mean() / posterior.mean[0].numel()
        hint = max(0.0, 1 - stage.done / _HINT_SHARE) * _colour_hint(posterior.mean.float(), pictures)
        loss: Tensor = _picture_loss(rebuilt, pictures) + _KL_WEIGHT * spread + hint
        return loss

    stage.run(loss_of)
    vae = stage.averaged()
    with torch.no_grad():
        samples = to_unit(looks.sample(256, ["truth"])["truth"])
        spread = float(vae.encode(samples).latent_dist.sample().std())  # type: ignore[operator]
        error = functional.mse_loss(vae.decode(vae.encode(samples).latent_dist.mean).sample, samples)  # type: ignore[operator]
    print(f"vae: latent std {spread:.3f}, PSNR {10 * math.log10(4 / float(error)):.2f} dB", flush=True)
    stage.save({"scaling_factor": round(1 / spread, 5)})


def _vae_pictures(looks: Pictures, step: int) -> Tensor:
    """What the VAE meets in use: people, masked people, garments; every fourth batch accessories at their own size.

    Batches have one size each, so that cuDNN's search for the fastest algorithm pays.
    """
    count = _BATCH["vae"]
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


def _chroma(pictures: Tensor) -> Tensor:
    """Red and blue against green, averaged over 4x4 pixels."""
    return functional.avg_pool2d(pictures[:, ::2] - pictures[:, 1:2], 4)


def _picture_loss(rebuilt: Tensor, pictures: Tensor) -> Tensor:
    """L1 of pixels, of their differences across and down, and of chroma; 1 - SSIM (Wang et al. 2004, 7x7 windows)."""
    across = (rebuilt.diff(dim=3) - pictures.diff(dim=3)).abs().mean()
    down = (rebuilt.diff(dim=2) - pictures.diff(dim=2)).abs().mean()
    mean_a, mean_b = functional.avg_pool2d(rebuilt, 7, 1), functional.avg_pool2d(pictures, 7, 1)
    variance_a = functional.avg_pool2d(rebuilt**2, 7, 1) - mean_a**2
    variance_b = functional.avg_pool2d(pictures**2, 7, 1) - mean_b**2
    covariance = functional.avg_pool2d(rebuilt * pictures, 7, 1) - mean_a * mean_b
    c1, c2 = 0.02**2, 0.06**2  # (0.01 L)^2 and (0.03 L)^2 for a range L of 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
    colour = (_chroma(rebuilt) - _chroma(pictures)).abs().mean()
    return (rebuilt - pictures).abs().mean() + across + down + colour + 0.15 * (1 - similarity).mean()


def train_unet(folder: Path, feed: LookFeed, device: str, seconds: float) -> None:
    """Noise prediction (Ho et al. 2020) under the published mask, pose and references, some of them dropped."""
    vae = load_stage(folder, "vae", device).eval().requires_grad_(False)
    scale = float(read_json(folder / "vae" / "config.json")["scaling_factor"])
    looks = Latents(feed, vae, scale, device, capacity=20_000)
    looks.refill(wait_s=120)
    schedule = DDPMScheduler.from_config(SCHEDULER_CONFIG).alphas_cumprod.to(device)
    stage = Stage("unet", folder, device, seconds)

    def loss_of(network: nn.Module) -> Tensor:
        if stage.steps % _REFILL_EVERY == 0:
            looks.refill()
        code, batch = looks.sample(_BATCH["unet"])
        mode = "full" if torch.rand(()) < 0.65 else "worn"
        truth, mask = batch["truth"], batch[f"{mode}_mask"]
        noise, times = torch.randn_like(truth), torch.randint(1000, (len(truth),), device=device)
        signal = schedule[times].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * truth + (1 - signal).sqrt() * noise
        kept = (torch.rand(len(truth), 1, 1, 1, device=device) >= _DROP_REFERENCES).float()
        with torch.autocast(device, torch.bfloat16):
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


_TRAIN = {"parser": train_parser, "vae": train_vae, "unet": train_unet}


def main() -> None:
    """Train the named stages for up to `--seconds` each; run again to continue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder: read if it exists, then written")
    parser.add_argument("--stages", default="parser,vae,unet")
    parser.add_argument("--seconds", type=float, default=1e9, help="limit for each stage in this run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=14, help="processes that draw")
    parser.add_argument("--seed", type=int, default=1, help="use another in every piece, for fresh figures")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    with LookFeed(options.processes, options.seed * 10_000_000) as feed:
        for name in options.stages.split(","):
            _TRAIN[name](options.out, feed, options.device, options.seconds)


if __name__ == "__main__":
    main()
