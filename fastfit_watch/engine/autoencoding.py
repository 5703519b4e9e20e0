"""Encodes pictures to latents and decodes latents to pictures with the VAE."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from fastfit_watch.engine.fused.vae import FusedVAE
from fastfit_watch.engine.noise import DrawNoise
from fastfit_watch.engine.transfer import upload


def work_device(network: nn.Module | FusedVAE) -> torch.device:
    """Where a network computes. If its weights come layer by layer, it has no device of its own; accelerate knows."""
    if isinstance(network, FusedVAE):
        return network.device
    parameter = next(network.parameters())
    if not parameter.is_meta:
        return parameter.device
    hooks = (getattr(module, "_hf_hook", None) for module in network.modules())
    return torch.device(next(hook.execution_device for hook in hooks if hook is not None))


def encode(vae: AutoencoderKL | FusedVAE, pixels: Tensor, draw_noise: DrawNoise) -> Tensor:
    """Encode pixels to scaled latents, on the VAE's device (step 5).

    Parameters
    ----------
    pixels : (B, 3, H, W) in [-1, 1].
    draw_noise : gives the posterior's standard normal noise for the latents' shape, float32.

    Returns
    -------
    float32 (B, 4, H/8, W/8).
    """
    if isinstance(vae, FusedVAE):
        mean, deviation = vae.encode(pixels)
    else:
        posterior = vae.encode(pixels.to(work_device(vae), vae.dtype)).latent_dist
        mean, deviation = posterior.mean.float(), posterior.std.float()
    drawn: Tensor = mean + deviation * upload(draw_noise(tuple(mean.shape)), mean.device)
    return drawn * scale_of(vae)


def scale_of(vae: AutoencoderKL | FusedVAE) -> float:
    """What the VAE's latents are multiplied by for the UNet."""
    return vae.scaling_factor if isinstance(vae, FusedVAE) else float(vae.config.scaling_factor)


def decode(vae: AutoencoderKL | FusedVAE, latents: Tensor) -> Tensor:
    """Decode scaled latents (B, 4, h, w) to pixels, float32 (B, 3, 8h, 8w), nominally in [-1, 1] (step 12)."""
    unscaled = latents / scale_of(vae)
    if isinstance(vae, FusedVAE):
        return vae.decode(unscaled)
    pixels: Tensor = vae.decode(unscaled.to(vae.dtype)).sample
    return pixels.float()
