"""From noise to a picture: the noise, the schedule, the denoising loop, and the way between pixels and latents.

Source: FastFit inference specification, section 2; the schedule is DDPM (Ho et al. 2020, algorithm 2), the guidance is
classifier-free (Ho and Salimans 2022, equation 6). Latents stay float32 throughout; only networks work in their own
type. Nothing here decides about gradients or devices: callers do.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fastfit_watch.engine.attention import ReferenceCache
from fastfit_watch.engine.unet import FastFitUNet
from fastfit_watch.errors import BundleError

Pixels = NDArray[np.uint8]
OnStep = Callable[[int, int], None]
DrawNoise = Callable[[tuple[int, ...]], Tensor]

_MASKED = 128  # a mask byte from here on is repainted: 0.5 of 255, rounded as section 2 step 3 rounds it
_SMALLEST_VARIANCE = 1e-20


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
    digest = hashlib.sha256(slot.encode())
    for picture in pictures:
        digest.update(repr(picture.shape).encode())
        digest.update(picture.tobytes())
    seed = int.from_bytes(digest.digest()[:8], "big") >> 1  # the generator takes 63 bits
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class NoiseSchedule:
    """The timesteps of one run, in order, and the signal's share there (the paper's cumulative alpha).

    timesteps : 0..999, falling. signal : one share in 0..1 for each timestep. clip : the predicted picture's latents
    are clamped to +-clip; None (all known bundles) leaves them.
    """

    timesteps: tuple[int, ...]
    signal: tuple[float, ...]
    clip: float | None = None

    @classmethod
    def of(cls, scheduler: DDPMScheduler, steps: int) -> NoiseSchedule:
        """Take the timesteps of `steps` denoising steps from a bundle's scheduler, which is left unchanged.

        Raises
        ------
        BundleError : the scheduler does something that this formula does not.
        """
        config = scheduler.config
        supported = {"prediction_type": "epsilon", "variance_type": "fixed_small", "thresholding": False}
        for name, value in supported.items():
            if config[name] != value:
                raise BundleError(
                    f"The bundle's scheduler has {name} {config[name]!r}; only {value!r} is supported.",
                    hint="Use an unchanged copy of the released scheduler/scheduler_config.json.",
                )
        own = DDPMScheduler.from_config(config)
        own.set_timesteps(steps)
        timesteps = tuple(int(timestep) for timestep in own.timesteps)
        signal = tuple(float(own.alphas_cumprod[timestep]) for timestep in timesteps)
        return cls(timesteps, signal, float(config.clip_sample_range) if config.clip_sample else None)

    def step(self, index: int, latents: Tensor, predicted_noise: Tensor, fresh_noise: Tensor) -> Tensor:
        """Take latents at step `index` one step further (Ho et al. 2020, equation 7 and algorithm 2).

        All tensors are (B, 4, h, w). The last timestep is above 0, so noise is added in the last step too; there its
        variance is the smallest one.
        """
        signal = self.signal[index]
        next_signal = self.signal[index + 1] if index + 1 < len(self.signal) else 1.0
        kept = signal / next_signal
        picture = (latents - math.sqrt(1 - signal) * predicted_noise) / math.sqrt(signal)
        if self.clip is not None:
            picture = picture.clamp(-self.clip, self.clip)
        to_picture = math.sqrt(next_signal) * (1 - kept) / (1 - signal)
        to_latents = math.sqrt(kept) * (1 - next_signal) / (1 - signal)
        variance = max((1 - next_signal) / (1 - signal) * (1 - kept), _SMALLEST_VARIANCE)
        return to_picture * picture + to_latents * latents + math.sqrt(variance) * fresh_noise


def denoise(
    unet: FastFitUNet,
    schedule: NoiseSchedule,
    condition: Tensor,
    references: ReferenceCache | None,
    guidance: float,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Tensor:
    """Run all steps (section 2, steps 7 to 10).

    Parameters
    ----------
    condition : float32 (B, 5, h, w), from `make_condition`.
    references : 2B rows, first the unconditional ones, when guidance is on; else B rows.
    guidance : scale; 1 or less turns guidance off, which halves the work.
    on_step : called after every step with (steps done, steps in all). What it raises ends the run.

    Returns
    -------
    float32 (B, 4, h, w), scaled latents.
    """
    guided = guidance > 1
    shape = (condition.shape[0], 4, *condition.shape[2:])
    latents = noise.initial(shape).to(condition.device)
    for index, timestep in enumerate(schedule.timesteps):
        sample = torch.cat([latents, condition], dim=1).to(unet.dtype)
        predicted = unet.denoise(torch.cat([sample, sample]) if guided else sample, timestep, references).float()
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + guidance * (conditional - unconditional)
        latents = schedule.step(index, latents, predicted, noise.step(index, shape).to(latents.device))
        if on_step is not None:
            on_step(index + 1, len(schedule.timesteps))
    return latents


def make_condition(mask: Tensor, masked_latents: Tensor) -> Tensor:
    """Put mask and masked person's latents side by side, (B, 5, h, w). `mask` is (B, 1, H, W), 0 or 1 (step 6)."""
    small = functional.interpolate(mask, size=masked_latents.shape[2:], mode="nearest")
    return torch.cat([small, masked_latents], dim=1)


def to_tensor(picture: Pixels) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def mask_to_tensor(mask: Pixels) -> Tensor:
    """uint8 (H, W) to float32 (1, 1, H, W): 1 where the picture is repainted, else 0."""
    return torch.from_numpy((mask >= _MASKED).astype(np.float32))[None, None]


def cover_person(picture: Pixels, mask: Pixels, pose: Pixels) -> Tensor:
    """Hide what is repainted behind the pose drawing: float32 (1, 3, H, W) (steps 3 and 4).

    The pose is scaled to [0, 1], not [-1, 1]: its black is the mid-grey of the VAE's range, as the model was trained.

    Parameters
    ----------
    picture, pose : uint8 (H, W, 3), RGB. mask : uint8 (H, W).
    """
    repainted = mask_to_tensor(mask)
    drawing = torch.from_numpy(pose.astype(np.float32)).permute(2, 0, 1)[None] / 255
    return to_tensor(picture) * (1 - repainted) + repainted * drawing


def encode(vae: AutoencoderKL, pixels: Tensor, draw_noise: DrawNoise) -> Tensor:
    """Encode pixels to scaled latents, on the VAE's device (step 5).

    Parameters
    ----------
    pixels : (B, 3, H, W) in [-1, 1].
    draw_noise : gives the posterior's standard normal noise for the latents' shape, float32.

    Returns
    -------
    float32 (B, 4, H/8, W/8).
    """
    posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    noise = draw_noise(tuple(posterior.mean.shape)).to(vae.device)
    drawn: Tensor = posterior.mean.float() + posterior.std.float() * noise
    return drawn * float(vae.config.scaling_factor)


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode scaled latents (B, 4, h, w) to pixels, float32 (B, 3, 8h, 8w), nominally in [-1, 1] (step 12)."""
    pixels: Tensor = vae.decode((latents / float(vae.config.scaling_factor)).to(vae.dtype)).sample
    return pixels.float()


def composite(generated: Tensor, picture: Pixels, mask: Pixels) -> Pixels:
    """Put the repainted region into the picture: uint8 (H, W, 3) (steps 13 and 14).

    Chosen byte by byte after rounding: pixels outside the mask are the picture's own, whatever type the VAE works in.

    Parameters
    ----------
    generated : float32 (1, 3, H, W). picture : uint8 (H, W, 3). mask : uint8 (H, W).
    """
    levels = ((generated[0] / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.where(mask[..., None] >= _MASKED, levels.permute(1, 2, 0).cpu().numpy(), picture)
