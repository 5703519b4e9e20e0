"""The plain denoising loop, for every rung of the memory ladder but the first.

Source: FastFit inference specification, section 2; the guidance is classifier-free (Ho and Salimans 2022, equation 6).
Latents stay float32 throughout; only networks work in their own type. Nothing here decides about gradients or devices:
callers do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.noise import Noise
from fastfit_watch.engine.noise_schedule import NoiseSchedule, OnStep


@dataclass(frozen=True)
class DenoiseInput:
    """What one run of the loop starts from.

    Attributes
    ----------
    condition : float32 (B, 5, h, w), from `make_condition`.
    references : 2B rows, first the unconditional ones, when guidance is on; else B rows.
    guidance : scale; 1 or less turns guidance off, which halves the work.
    noise : gives the initial latents and what each step adds.
    """

    condition: Tensor
    references: ReferenceCache | None
    guidance: float
    noise: Noise


def denoise(
    unet: FastFitUNet,
    schedule: NoiseSchedule,
    start: DenoiseInput,
    on_step: OnStep | None = None,
    *,
    halves: bool = False,
) -> Tensor:
    """Run all steps (section 2, steps 7 to 10).

    Parameters
    ----------
    on_step : called after every step with (steps done, steps in all). What it raises ends the run.
    halves : of guidance's two halves, one after the other. Less memory, the same but for rounding; B is 1.

    Returns
    -------
    float32 (B, 4, h, w), scaled latents.
    """
    condition, references, guidance, noise = start.condition, start.references, start.guidance, start.noise
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
