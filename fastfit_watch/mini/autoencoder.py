"""The VAE's two stages: the whole of it before the UNet, its decoder once more after.

Both count garments, bare skin and accessories for more than their share of pixels, and compare the colours of every
such region as a whole: what people know a garment by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.buffers import Pictures, emphasis, to_unit
from fastfit_watch.mini.feed import SKIN, LookFeed
from fastfit_watch.mini.losses import picture_loss, region_loss, weighted_loss
from fastfit_watch.mini.recorded import Variant
from fastfit_watch.mini.stage import Piece, Stage

_KL_WEIGHT = 3e-4
_HINT_SHARE = 0.2  # of the VAE's training: later it is free to use its channels as it likes
_REGION_WEIGHT = 2.0
_REGIONS = SKIN + 1
_PAPER_SHADE = 10  # a flat-lay lies on one colour; what differs by more in any channel, of 255, is the garment
_PEOPLE, _ACCESSORIES, _DETAILS = "people", "accessories", "details"
_DETAILS_SHARE = 0.75  # of the VAE's training goes by on parts of pictures, of which four cost no more than a whole one
_CAPACITY = 6_000
_DECODER = ("decoder.", "post_quant_conv.")


def train_vae(piece: Piece, feed: LookFeed) -> None:
    """Reconstruction of people, masked people and garments, and a light KL (Kingma & Welling 2013)."""
    stage = Stage("vae", piece)
    fields = ["person", "truth", "seen", "pose", "full", "cloth", "second", "shoe", "bag", "outfit"]
    looks = Pictures(feed, piece.device, fields, _CAPACITY)

    def loss_of(network: nn.Module, variant: Variant) -> Tensor:
        pictures, labels = _choose(variant, looks, stage.batch)
        posterior = network.encode(pictures.to(stage.dtype)).latent_dist  # type: ignore[operator]
        rebuilt = network.decode(posterior.sample()).sample.float()  # type: ignore[operator]
        spread = posterior.kl().float().mean() / posterior.mean[0].numel()
        hint = (1 - stage.progress / _HINT_SHARE).clamp(min=0) * _colour_hint(posterior.mean.float(), pictures)
        loss: Tensor = _likeness(rebuilt, pictures, labels) + _KL_WEIGHT * spread + hint
        return loss

    def choose() -> str:
        # One size of pictures each, so that they batch; accessories come about as often as the engine encodes them.
        if stage.steps % 4 == 3:
            return _ACCESSORIES
        return _DETAILS if stage.done < _DETAILS_SHARE else _PEOPLE

    stage.run(loss_of, choose, looks.refill)
    vae = stage.averaged()
    with torch.no_grad():
        samples = to_unit(looks.sample(4 * stage.batch, ["truth"])["truth"])
        spread = float(vae.encode(samples).latent_dist.sample().std())  # type: ignore[operator]
        error = functional.mse_loss(vae.decode(vae.encode(samples).latent_dist.mean).sample, samples)  # type: ignore[operator]
    print(f"vae: latent std {spread:.3f}, PSNR {10 * math.log10(4 / float(error)):.2f} dB", flush=True)
    stage.save({"scaling_factor": round(1 / spread, 5)})


def train_decoder(piece: Piece, feed: LookFeed) -> None:
    """Dressed figures through the decoder alone: latents keep their meaning, and the UNet stays valid."""
    stage = Stage("decoder", piece, "vae", _DECODER)
    looks = Pictures(feed, piece.device, ["truth", "seen"], _CAPACITY)

    def loss_of(network: nn.Module, _: Variant) -> Tensor:
        batch = looks.sample(stage.batch, ["truth", "seen"])
        pictures = to_unit(batch["truth"])
        with torch.no_grad():
            latents = network.encode(pictures.to(stage.dtype)).latent_dist.sample()  # type: ignore[operator]
        rebuilt = network.decode(latents).sample.float()  # type: ignore[operator]
        return _likeness(rebuilt, pictures, batch["seen"])

    stage.run(loss_of, lambda: _PEOPLE, looks.refill)
    stage.save()


def _choose(variant: Variant, looks: Pictures, count: int) -> tuple[Tensor, Tensor]:
    """Pictures of one size, float32 (B, 3, H, W) in [-1, 1], and their labels, uint8 (B, H, W)."""
    if variant == _ACCESSORIES:
        return _accessories(looks, count)
    if variant == _PEOPLE:
        return _people(looks, count // 2)
    pictures, labels = _people(looks, count)
    height, width = labels.shape[1] // 2, labels.shape[2] // 2
    places = torch.rand(2, count, 1, device=labels.device)
    rows = (places[0] * height).long() + torch.arange(height, device=labels.device)
    columns = (places[1] * width).long() + torch.arange(width, device=labels.device)
    where = torch.arange(count, device=labels.device)[:, None, None], rows[:, :, None], columns[:, None, :]
    return pictures.permute(0, 2, 3, 1)[where].permute(0, 3, 1, 2), labels[where]


def _likeness(rebuilt: Tensor, pictures: Tensor, labels: Tensor) -> Tensor:
    """What both stages reduce. labels: uint8 (B, H, W), `seen` of a look."""
    pixels = picture_loss(rebuilt, pictures) + weighted_loss(rebuilt, pictures, emphasis(labels))
    return pixels + _REGION_WEIGHT * region_loss(rebuilt, pictures, labels, _REGIONS)


def _people(looks: Pictures, count: int) -> tuple[Tensor, Tensor]:
    """Dressed people, garments, and people under their mask, with their labels."""
    batch = looks.sample(count, ["person", "truth", "seen", "pose", "full", "cloth", "second", "outfit"])
    garments, masked = count * 3 // 10, max(1, count // 10)
    mask = (batch["full"][:masked] >= 128).float()[:, None]
    pose = batch["pose"][:masked].permute(0, 3, 1, 2).float() / 255
    covered = to_unit(batch["person"][:masked]) * (1 - mask) + mask * pose
    worn = torch.cat([(batch["outfit"] & 5) > 0, (batch["outfit"] & 2) > 0])
    flat = _some(torch.cat([batch["cloth"], batch["second"]]), worn, garments)
    rest = slice(garments + masked, None)
    pictures = torch.cat([to_unit(flat), covered, to_unit(batch["truth"][rest])])
    nothing = torch.zeros_like(batch["seen"][:masked])
    return pictures, torch.cat([_flat_labels(flat, Category.UPPER), nothing, batch["seen"][rest]])


def _accessories(looks: Pictures, count: int) -> tuple[Tensor, Tensor]:
    """Shoes and bags at their own size, with their labels."""
    batch = looks.sample(count, ["shoe", "bag", "outfit"])
    worn = torch.cat([batch["outfit"] >> 3 & 1, batch["outfit"] >> 4 & 1]) > 0
    flat = _some(torch.cat([batch["shoe"], batch["bag"]]), worn, count)
    return to_unit(flat), _flat_labels(flat, Category.BAG)


def _some(pictures: Tensor, worn: Tensor, count: int) -> Tensor:
    """`count` random pictures, those that are worn first: a slot that is not worn holds an earlier look's garment."""
    order = worn.float() + torch.rand(len(worn), device=worn.device)
    return pictures[order.topk(count).indices]


def _flat_labels(pictures: Tensor, category: Category) -> Tensor:
    """Labels as in `seen` of flat-lays, uint8 (B, H, W, 3): everything that differs from the paper below."""
    differs = (pictures.int() - pictures[:, :1, :1].int()).abs().amax(-1) > _PAPER_SHADE
    return differs.to(torch.uint8) * (category.label + 1)


def _colour_hint(latents: Tensor, pictures: Tensor) -> Tensor:
    """Distance of the first three latent channels from the picture's own colours, in small.

    Without it a latent of four channels first learns light and dark alone, and takes long to find colour.
    """
    small = functional.avg_pool2d(pictures, pictures.shape[-1] // latents.shape[-1])
    return functional.mse_loss(latents[:, :3], 2 * small)
