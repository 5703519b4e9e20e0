"""From noise to a picture: the noise, the plain denoising loop, and the way between pixels and latents.

Source: FastFit inference specification, section 2; the guidance is classifier-free (Ho and Salimans 2022, equation 6).
Latents stay float32 throughout; only networks work in their own type. Nothing here decides about gradients or devices:
callers do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.engine.fused.vae import FusedVAE
from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.noise_schedule import NoiseSchedule
from fastfit_watch.engine.transfer import download_pixels, upload, upload_pixels

Pixels = NDArray[np.uint8]
OnStep = Callable[[int, int], None]
DrawNoise = Callable[[tuple[int, ...]], Tensor]

_MASKED = 128  # a mask byte from here on is repainted: 0.5 of 255, rounded as section 2 step 3 rounds it


class Noise(Protocol):
    """Where every standard normal number of a look comes from. All float32, on the CPU."""

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        """Return the latents that denoising starts from."""
        ...

    def step(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """Return what step `index` (from 0) adds. Steps are asked for in order, the last one too."""
        ...


class SeededNoise:
    """One stream from one seed, drawn on the CPU so that the device does not matter: initial, step 0, step 1, ..."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        """Draw the latents that denoising starts from."""
        return torch.randn(shape, generator=self._generator)

    def step(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """Draw the noise of the next step."""
        del index  # the order of the calls is the order of the stream
        return torch.randn(shape, generator=self._generator)


def draw_posterior_noise(slot: str, pictures: tuple[Pixels, ...], shape: tuple[int, ...]) -> Tensor:
    """Draw the VAE posterior's standard normal noise for one picture: float32 `shape`, on the CPU.

    The published model draws it from a generator nobody seeds. Here it follows from the content alone, seeded with the
    SHA-256 of the slot and the pixels: the latents of a garment are the same in every look, with every seed, and may be
    kept.

    Parameters
    ----------
    slot : what the picture is used as: a category, or "person".
    pictures : uint8 arrays, all that the encoded picture is made of.
    """
    return draw_seeded(posterior_seed(slot, pictures), shape)


def posterior_seed(slot: str, pictures: tuple[Pixels, ...]) -> int:
    """The seed of `draw_posterior_noise`. Other threads go on while it is made."""
    digest = hashlib.sha256(slot.encode())
    for picture in pictures:
        digest.update(repr(picture.shape).encode())
        digest.update(np.ascontiguousarray(picture).data)
    return int.from_bytes(digest.digest()[:8], "big") >> 1  # the generator takes 63 bits


def draw_seeded(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise of a seed of its own: float32 `shape`, on the CPU."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def denoise(
    unet: FastFitUNet,
    schedule: NoiseSchedule,
    condition: Tensor,
    references: ReferenceCache | None,
    guidance: float,
    noise: Noise,
    on_step: OnStep | None = None,
    *,
    halves: bool = False,
) -> Tensor:
    """Run all steps (section 2, steps 7 to 10), plainly: on every rung of the memory ladder but the first.

    Parameters
    ----------
    condition : float32 (B, 5, h, w), from `make_condition`.
    references : 2B rows, first the unconditional ones, when guidance is on; else B rows.
    guidance : scale; 1 or less turns guidance off, which halves the work.
    on_step : called after every step with (steps done, steps in all). What it raises ends the run.
    halves : of guidance's two halves, one after the other. Less memory, the same but for rounding; B is 1.

    Returns
    -------
    float32 (B, 4, h, w), scaled latents.
    """
    shape = (condition.shape[0], 4, *condition.shape[2:])
    latents = noise.initial(shape).to(condition.device)
    picture = torch.zeros_like(latents)
    for index, timestep in enumerate(schedule.timesteps):
        sample = torch.cat([latents, condition], dim=1).to(unet.dtype)
        if guidance <= 1:
            predicted = unet.denoise(sample, timestep, references).float()
        elif not schedule.guided[index]:
            predicted = unet.denoise(sample, timestep, references and references.half(1)).float()
        else:
            unconditional, conditional = _predict_both(unet, sample, timestep, references, halves=halves)
            predicted = unconditional + guidance * (conditional - unconditional)
        fresh = noise.step(index, shape).to(latents.device)
        latents, picture = schedule.step(index, latents, predicted, picture, fresh)
        if on_step is not None:
            on_step(index + 1, len(schedule.timesteps))
    return latents


def _predict_both(
    unet: FastFitUNet, sample: Tensor, timestep: int, references: ReferenceCache | None, *, halves: bool
) -> tuple[Tensor, Tensor]:
    """Guidance's two halves, unconditional and conditional, float32."""
    if halves:
        parts = [unet.denoise(sample, timestep, references and references.half(row)) for row in (0, 1)]
        return parts[0].float(), parts[1].float()
    both = unet.denoise(torch.cat([sample, sample]), timestep, references).float()
    unconditional, conditional = both.chunk(2)
    return unconditional, conditional


def make_condition(mask: Tensor, masked_latents: Tensor) -> Tensor:
    """Put mask and masked person's latents side by side, (B, 5, h, w). `mask` is (B, 1, H, W), 0 or 1 (step 6)."""
    small = functional.interpolate(mask, size=masked_latents.shape[2:], mode="nearest")
    return torch.cat([small, masked_latents], dim=1)


def to_tensor(picture: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [-1, 1]. It travels to the device as bytes."""
    return _planes(picture, device) / 127.5 - 1


def mask_to_tensor(mask: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (H, W) to float32 (1, 1, H, W): 1 where the picture is repainted, else 0."""
    return (upload_pixels(mask, device) >= _MASKED).float()[None, None]


def _planes(picture: Pixels, device: torch.device | str) -> Tensor:
    return upload_pixels(picture, device).permute(2, 0, 1)[None].float()


def cover_person(picture: Pixels, mask: Pixels, pose: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """Hide what is repainted behind the pose drawing: float32 (1, 3, H, W) (steps 3 and 4).

    The pose is scaled to [0, 1], not [-1, 1]: its black is the mid-grey of the VAE's range, as the model was trained.

    Parameters
    ----------
    picture, pose : uint8 (H, W, 3), RGB. mask : uint8 (H, W).
    """
    repainted = mask_to_tensor(mask, device)
    drawing = _planes(pose, device) / 255
    return to_tensor(picture, device) * (1 - repainted) + repainted * drawing


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


def to_pixels(generated: Tensor) -> Pixels:
    """float32 (1, 3, H, W), nominally in [-1, 1], to uint8 (H, W, 3) in the machine's memory."""
    levels = ((generated[0] / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return download_pixels(levels.permute(1, 2, 0).contiguous())


def composite(generated: Pixels, picture: Pixels, mask: Pixels) -> Pixels:
    """Put the repainted region into the picture: uint8 (H, W, 3) (steps 13 and 14).

    Chosen byte by byte after rounding: pixels outside the mask are the picture's own, whatever type the VAE works in.

    Parameters
    ----------
    generated, picture : uint8 (H, W, 3). mask : uint8 (H, W).
    """
    result = picture.copy()
    cv2.copyTo(generated, (mask >= _MASKED).view(np.uint8), result)
    return result
