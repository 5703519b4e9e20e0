"""The way from noise to latents: which timesteps, with or without guidance, and the formula of each step.

Every solver here is one formula with other numbers, so that all of them are known before the loop begins:

    picture = from_latents * latents + from_noise * predicted noise, clamped where the bundle says so
    latents = keep * latents + draw * picture + recall * previous picture + stir * fresh noise

`exact` is DDPM (Ho et al. 2020, equation 7 and algorithm 2), as published. The others are SDE-DPM-Solver++(2M)
(Lu et al. 2022, appendix), which needs fewer steps, with guidance only where it matters (Kynkaanniemi et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from diffusers import DDPMScheduler
from torch import Tensor

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.domain.look import Preset

_SMALLEST_VARIANCE = 1e-20


@dataclass(frozen=True)
class Coefficients:
    """The numbers of one step; see the formula above."""

    from_latents: float
    from_noise: float
    keep: float
    draw: float
    recall: float
    stir: float


@dataclass(frozen=True)
class NoiseSchedule:
    """One run, step by step.

    timesteps : 0..999, falling. signal : the signal's share at each (the paper's cumulative alpha), in 0..1.
    coefficients : of each step. guided : does this step run both halves of guidance? clip : the predicted picture's
    latents are clamped to +-clip; None (all known bundles) leaves them.
    """

    timesteps: tuple[int, ...]
    signal: tuple[float, ...]
    coefficients: tuple[Coefficients, ...]
    guided: tuple[bool, ...]
    clip: float | None = None

    @classmethod
    def of(cls, scheduler: DDPMScheduler, steps: int, preset: Preset = Preset.EXACT) -> NoiseSchedule:
        """Plan `steps` denoising steps with a bundle's scheduler, which is left unchanged.

        Raises
        ------
        BundleError : the scheduler does something that these formulas do not.
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
        coefficients = _ddpm(signal) if preset is Preset.EXACT else _sde_dpm_solver(signal)
        guided = tuple(index < round(preset.guided_share * steps) for index in range(steps))
        clip = float(config.clip_sample_range) if config.clip_sample else None
        return cls(timesteps, signal, coefficients, guided, clip)

    def step(
        self, index: int, latents: Tensor, predicted_noise: Tensor, previous: Tensor, fresh_noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take latents at step `index` one step further; returns them and the predicted picture.

        All tensors are (B, 4, h, w). previous : the picture that the step before predicted; zeros at the first. The
        last timestep is above 0, so `exact` adds noise in the last step too; there its variance is the smallest one.
        """
        return advance(astuple(self.coefficients[index]), self.clip, latents, predicted_noise, previous, fresh_noise)


def advance(
    coefficients: Sequence[float] | Tensor,
    clip: float | None,
    latents: Tensor,
    predicted_noise: Tensor,
    previous: Tensor,
    fresh_noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """The formula of all solvers; coefficients in the order of `Coefficients`, as numbers or as a tensor (6,)."""
    from_latents, from_noise, keep, draw, recall, stir = coefficients
    picture = from_latents * latents + from_noise * predicted_noise
    if clip is not None:
        picture = picture.clamp(-clip, clip)
    return keep * latents + draw * picture + recall * previous + stir * fresh_noise, picture


def _ddpm(signal: Sequence[float]) -> tuple[Coefficients, ...]:
    """Ho et al. 2020, equation 7 and algorithm 2."""
    result = []
    for here, there in zip(signal, (*signal[1:], 1.0), strict=True):
        kept = here / there
        variance = max((1 - there) / (1 - here) * (1 - kept), _SMALLEST_VARIANCE)
        keep, draw = math.sqrt(kept) * (1 - there) / (1 - here), math.sqrt(there) * (1 - kept) / (1 - here)
        result.append(Coefficients(*_to_picture(here), keep, draw, 0.0, math.sqrt(variance)))
    return tuple(result)


def _sde_dpm_solver(signal: Sequence[float]) -> tuple[Coefficients, ...]:
    """Lu et al. 2022, SDE-DPM-Solver++(2M): second order, from the picture predicted one step before.

    The first step and the last, which ends without noise, are of first order.
    """
    result = []
    earlier_s: float | None = None  # half logarithm of signal to noise, the solver's own time
    for here, there in zip(signal, (*signal[1:], 1.0), strict=True):
        here_s = _time(here)
        if there == 1.0:
            result.append(Coefficients(*_to_picture(here), 0.0, 1.0, 0.0, 0.0))
            break
        span = _time(there) - here_s
        grown = -math.expm1(-2 * span)
        draw = math.sqrt(there) * grown
        slope = 0.0 if earlier_s is None else draw / 2 * span / (here_s - earlier_s)
        keep = math.sqrt((1 - there) / (1 - here)) * math.exp(-span)
        result.append(Coefficients(*_to_picture(here), keep, draw + slope, -slope, math.sqrt((1 - there) * grown)))
        earlier_s = here_s
    return tuple(result)


def _to_picture(signal: float) -> tuple[float, float]:
    """Factors that turn latents and their noise into the picture."""
    return 1 / math.sqrt(signal), -math.sqrt(1 - signal) / math.sqrt(signal)


def _time(signal: float) -> float:
    return 0.5 * math.log(signal / (1 - signal))


OnStep = Callable[[int, int], None]
