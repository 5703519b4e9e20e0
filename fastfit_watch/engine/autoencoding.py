"""Encodes pictures to latents and decodes latents to pixels with a VAE, whichever form of it there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fastfit_watch.engine.noise import DrawNoise
from fastfit_watch.engine.transfer import upload


class Autoencoder(Protocol):
    """A VAE for inference. Latents are unscaled here."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def scaling_factor(self) -> float:
        """What latents are multiplied by for the UNet."""
        ...

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] to mean and standard deviation of the latents, float32 (B, 4, H/8, W/8)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w) to pixels, float32 (B, 3, 8h, 8w), nominally in [-1, 1]."""
        ...


@dataclass(frozen=True)
class PlainVAE:
    """diffusers' own VAE as an `Autoencoder`."""

    network: AutoencoderKL

    @property
    def device(self) -> torch.device:
        """Where it computes. If its weights come layer by layer, it has no device of its own; accelerate knows."""
        parameter: Tensor = next(self.network.parameters())
        if not parameter.is_meta:
            return torch.device(parameter.device)
        hooks = (getattr(module, "_hf_hook", None) for module in self.network.modules())
        return torch.device(next(hook.execution_device for hook in hooks if hook is not None))

    @property
    def scaling_factor(self) -> float:
        """What latents are multiplied by for the UNet."""
        return float(self.network.config.scaling_factor)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the posterior; see `Autoencoder.encode`."""
        posterior = self.network.encode(pixels.to(self.device, self.network.dtype)).latent_dist
        return posterior.mean.float(), posterior.std.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Return the pixels of latents; see `Autoencoder.decode`."""
        pixels: Tensor = self.network.decode(latents.to(self.network.dtype)).sample
        return pixels.float()


def encode(vae: Autoencoder, pixels: Tensor, draw_noise: DrawNoise) -> Tensor:
    """Encode pixels to scaled latents, on the VAE's device (step 5).

    Parameters
    ----------
    pixels : (B, 3, H, W) in [-1, 1].
    draw_noise : gives the posterior's standard normal noise for the latents' shape, float32.

    Returns
    -------
    float32 (B, 4, H/8, W/8).
    """
    mean, deviation = vae.encode(pixels)
    drawn: Tensor = mean + deviation * upload(draw_noise(tuple(mean.shape)), mean.device)
    return drawn * vae.scaling_factor


def decode(vae: Autoencoder, latents: Tensor) -> Tensor:
    """Decode scaled latents (B, 4, h, w) to pixels, float32 (B, 3, 8h, 8w), nominally in [-1, 1] (step 12)."""
    return vae.decode(latents / vae.scaling_factor)
