"""The last stage: the VAE's decoder alone, on dressed figures, so that every garment comes out in its own colours.

The encoder stays as it is, so latents keep their meaning and the UNet stays valid. The first training of the VAE weighs
all pixels alike: a shoe is half a percent of them, and came out in a colour between its own and the ground's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastfit_watch.look import Category
from fastfit_watch.mini.buffers import Pictures, to_unit
from fastfit_watch.mini.feed import LookFeed
from fastfit_watch.mini.losses import picture_loss, region_loss, weighted_loss
from fastfit_watch.mini.networks import read_json
from fastfit_watch.mini.stage import Piece, Stage

_PARTS = ("decoder.", "post_quant_conv.")
_GARMENT_WEIGHT, _ACCESSORY_WEIGHT, _REGION_WEIGHT = 3.0, 8.0, 2.0
_REFILL_EVERY = 8  # on a small machine drawing takes the processors that training needs
_REGIONS = 1 + len(Category)


def train_decoder(piece: Piece, feed: LookFeed) -> None:
    """Reconstruction weighted by what a pixel shows, and the colours of every garment's region as a whole."""
    scale = read_json(piece.folder / "vae" / "config.json")["scaling_factor"]
    stage, looks = Stage("decoder", piece, "vae", _PARTS), Pictures(feed, piece.device, capacity=100)
    looks.refill(wait_s=120)

    def loss_of(network: nn.Module) -> Tensor:
        if stage.steps % _REFILL_EVERY == 0:
            looks.refill()
        batch = looks.sample(stage.batch, ["truth", "seen"])
        pictures, labels = to_unit(batch["truth"]), batch["seen"].long()
        weight = 1 + _GARMENT_WEIGHT * (labels > 0) + _ACCESSORY_WEIGHT * (labels > Category.DRESS.label + 1)
        with torch.autocast(piece.device, torch.bfloat16):
            with torch.no_grad():
                latents = network.encode(pictures).latent_dist.sample()  # type: ignore[operator]
            rebuilt = network.decode(latents).sample.float()  # type: ignore[operator]
        loss = weighted_loss(rebuilt, pictures, weight[:, None].float()) + 0.5 * picture_loss(rebuilt, pictures)
        return loss + _REGION_WEIGHT * region_loss(rebuilt, pictures, labels, _REGIONS)

    stage.run(loss_of)
    stage.save({"scaling_factor": scale})
