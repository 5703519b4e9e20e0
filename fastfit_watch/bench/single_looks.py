"""Single looks in this process: the engine against the rival, presets, batches, and how near the limits it comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastfit_watch.bench.baseline import PublishedBaseline
from fastfit_watch.bench.person import StandingPerson
from fastfit_watch.bench.weights import draw_picture
from fastfit_watch.domain.look import Category, Preset, SamplingOptions
from fastfit_watch.engine.cache import ContentCache, HitList
from fastfit_watch.engine.fused.attention_backends import Kernel, Shape, time_kernels
from fastfit_watch.engine.fused.attention_buffers import AttentionBuffers
from fastfit_watch.engine.fused.unet import FusedUNet
from fastfit_watch.engine.noise import SeededNoise, draw_posterior_noise
from fastfit_watch.engine.noise_schedule import NoiseSchedule
from fastfit_watch.engine.pixels import Pixels, Size, cover_person
from fastfit_watch.engine.preprocessing.garments import fit_garment
from fastfit_watch.engine.references import read_reference_rows
from fastfit_watch.engine.tryon import PreparedLook, TryOnEngine

OUTFITS: Mapping[str, tuple[Category, ...]] = {
    "one garment": (Category.UPPER,),
    "two garments": (Category.UPPER, Category.LOWER),
    "full outfit": (Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG),
}
PUBLISHED_H200_S: Mapping[str, float] = {"one garment": 1.86, "two garments": 2.38, "full outfit": 2.65}
"""Seconds that the published code was measured to take on an H200, everything but parsing."""
_NOT_COUNTED = ("parse", "mask")  # both sides start from a parsed person
_MATRIX_SIDE = 8192

Made = TypeVar("Made")


@dataclass(frozen=True)
class Single:
    """One outfit with the engine. Seconds are the median, for everything but parsing.

    pixels : the picture, uint8 (H, W, 3). first_equals_later : is the very first picture, half made before its step was
    captured, the same as the last?
    """

    outfit: str
    seconds: float
    stages: Mapping[str, float]
    peak_vram_bytes: int | None
    first_equals_later: bool
    pixels: Pixels
    prepared: PreparedLook


@dataclass(frozen=True)
class Compared:
    """One outfit both ways."""

    outfit: str
    seconds: float
    rival_seconds: float
    psnr_db: float
    stages: Mapping[str, float]
    peak_vram_bytes: int | None
    first_equals_later: bool

    @property
    def times(self) -> float:
        """How many times as fast as the rival."""
        return self.rival_seconds / self.seconds


def time_single(engine: TryOnEngine, outfit: str, options: SamplingOptions, repeats: int) -> Single:
    """Time one outfit. Nothing is kept from look to look but the constant rows of guidance."""
    results = []
    for _ in range(repeats + 1):
        prepared = prepare(engine, OUTFITS[outfit], options)
        results.append(engine.sample(prepared))
    seconds = [count_seconds(result.seconds) for result in results]
    first, last = results[0], results[-1]
    same = bool(np.array_equal(np.asarray(first.image), np.asarray(last.image)))
    pixels = np.asarray(last.image)
    median = float(np.median(seconds[1:]))
    return Single(outfit, median, dict(last.seconds), last.peak_vram_bytes, same, pixels, prepared)


def compare(single: Single, baseline: PublishedBaseline, engine: TryOnEngine, repeats: int) -> Compared:
    """Time the rival on the same pictures and noise, and compare what is painted."""
    garments = {slot: _fitted(engine, slot) for slot in OUTFITS[single.outfit]}
    seconds, plain = _median(partial(_dress_plainly, baseline, single.prepared, garments), repeats, engine.device)
    inside = single.prepared.mask >= 128
    likeness = psnr(single.pixels[inside], plain[inside])
    measured = single.stages, single.peak_vram_bytes, single.first_equals_later
    return Compared(single.outfit, single.seconds, seconds, likeness, *measured)


def count_seconds(stages: Mapping[str, float]) -> float:
    """Seconds of all stages but parsing."""
    return sum(value for stage, value in stages.items() if stage not in _NOT_COUNTED)


def time_preset(engine: TryOnEngine, preset: Preset, repeats: int) -> float:
    """Median seconds of a full outfit with a preset, everything but parsing."""
    options = SamplingOptions(steps=preset.steps, seed=1, preset=preset)
    seconds = []
    for _ in range(repeats + 1):
        result = engine.sample(prepare(engine, OUTFITS["full outfit"], options))
        seconds.append(count_seconds(result.seconds))
    return float(np.median(seconds[1:]))


def time_batch(engine: TryOnEngine, count: int, outfit: str, steps: int) -> float:
    """Seconds of denoising for each of `count` looks that are denoised together."""
    fast = engine.fast
    if fast is None:
        return math.nan
    looks = [
        prepare(engine, OUTFITS[outfit], SamplingOptions(steps=steps, seed=seed), person=100 + seed)
        for seed in range(count)
    ]
    schedule = NoiseSchedule.of(engine.scheduler, steps)

    def run() -> None:
        hits = HitList(ContentCache(engine.device, 0, 0))
        rows = [read_reference_rows(fast.unet, look.references, 2.5, hits) for look in looks]
        condition = torch.cat([look.condition for look in looks])
        fast.denoise(schedule, condition, rows, 2.5, [SeededNoise(look.seed) for look in looks])

    # Graphs cannot be captured on the default stream.
    own = torch.cuda.stream(fast.sampling) if fast.sampling is not None else nullcontext()
    with torch.inference_mode(), own:
        run()
        seconds, _ = _median(run, 1, engine.device)
    fast.denoiser.drop_caches()
    return seconds / count


@dataclass(frozen=True)
class Limits:
    """The device's ceilings, measured, and what a step of a full outfit asks of them. Rates are operations a second."""

    matrix_rate: float
    attention_rate: float
    attention_kernel: str
    kernels: Mapping[str, float]
    step_attention: float
    step_rest: float

    @property
    def ideal_step_s(self) -> float:
        """Seconds of a step at both ceilings, one after the other."""
        return self.step_attention / self.attention_rate + self.step_rest / self.matrix_rate


def measure_limits(engine: TryOnEngine) -> Limits | None:
    """Measure both ceilings and count a step's operations; None without a GPU."""
    fast = engine.fast
    if fast is None or fast.unet.device.type != "cuda":
        return None
    device, dtype = fast.unet.device, fast.unet.dtype
    left, right = (torch.randn(_MATRIX_SIDE, _MATRIX_SIDE, device=device, dtype=dtype) for _ in range(2))
    seconds, _ = _median(partial(torch.matmul, left, right), 5, engine.device)
    height, width = (side // fast.vae.stride for side in engine.bundle.person_size)
    shapes = fast.unet.layer_shapes((height, width))
    garments = [engine.bundle.garment_sizes[slot] for slot in OUTFITS["full outfit"]]
    sizes = [(side[0] // fast.vae.stride, side[1] // fast.vae.stride) for side in garments]
    buffers = _buffers(fast.unet, (height, width), sizes)
    attention, rest = _count_step(fast.unet, (height, width), buffers)
    ratio = max(parts[-1].keys.shape[2] / parts[-1].own for parts in buffers.layers.values())
    largest = max(shapes.values(), key=lambda shape: shape.tokens)
    shape = Shape(largest.channels // largest.heads, largest.tokens)
    kernels = time_kernels(shape, 2 * largest.heads, int(ratio * shape.queries), device, dtype)
    done = 4 * 2 * largest.heads * shape.queries * int(ratio * shape.queries) * shape.head_size
    kernel = min(kernels, key=lambda name: kernels[name]) if kernels else Kernel.DEFAULT
    return Limits(
        2 * _MATRIX_SIDE**3 / seconds,
        done / kernels[kernel],
        kernel.value,
        {name.value: value for name, value in kernels.items()},
        attention,
        rest,
    )


def _buffers(unet: FusedUNet, size: Size, garments: Sequence[Size]) -> AttentionBuffers:
    """What a guided step of one look reads; sizes are those of latents, (height, width)."""
    seen, merged = ([read(each) for each in garments] for read in (unet.layer_shapes, unet.alike))
    shapes = unet.layer_shapes(size)
    many = {name: sum(each[name].tokens for each in seen) for name in shapes}
    few = {name: sum(each[name].tokens for each in (merged if name in merged[0] else seen)) for name in shapes}
    return AttentionBuffers.empty(shapes, 2, many, unet.device, unet.dtype, few)


def _count_step(unet: FusedUNet, size: Size, buffers: AttentionBuffers) -> tuple[float, float]:
    """Operations of one guided step: those of attention, and all others as PyTorch counts them."""
    picture = torch.zeros((1, *size, unet.input_channels), device=unet.device, dtype=unet.dtype)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        unet.predict(picture, unet.time_offsets([500]), buffers)
    attention = sum(
        4 * part.scores * part.keys.shape[1] * part.keys.shape[3] for parts in buffers.layers.values() for part in parts
    )
    counts = counter.get_flop_counts()["Global"]
    return float(attention), float(sum(count for kind, count in counts.items() if "attention" not in str(kind)))


def prepare(engine: TryOnEngine, slots: Sequence[Category], options: SamplingOptions, person: int = 0) -> PreparedLook:
    """A look of drawn patches, without digests: nothing of it is kept."""
    garments = {slot: draw_picture(slot.label + 1) for slot in slots}
    return replace(engine, parser=StandingPerson()).prepare(draw_picture(person + 50), garments, options)


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal to noise ratio of two uint8 pictures, in dB."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _dress_plainly(baseline: PublishedBaseline, prepared: PreparedLook, garments: Mapping[Category, Pixels]) -> Pixels:
    person, options = prepared.person, prepared.options
    noise, shape = SeededNoise(prepared.seed), (1, 4, *prepared.condition.shape[2:])
    drawn = torch.stack([noise.initial(shape), *(noise.step(index, shape) for index in range(options.steps))])
    posterior = {"person": draw_posterior_noise("person", (person.picture, person.mask, person.pose), shape)}
    for reference in prepared.references:
        size = tuple(reference.latents.shape)
        posterior[reference.category] = draw_posterior_noise(reference.category, (garments[reference.category],), size)
    covered = cover_person(person.picture, person.mask, person.pose)
    return baseline.dress(
        person.picture, covered, person.mask, garments, options.steps, options.guidance, drawn, posterior
    )


def _fitted(engine: TryOnEngine, slot: Category) -> Pixels:
    return fit_garment(draw_picture(slot.label + 1), engine.bundle.garment_sizes[slot])


def _median(run: Callable[[], Made], repeats: int, device: str) -> tuple[float, Made]:
    """Median seconds of a call after one that warms up, and what the last one gave."""
    result = run()
    seconds = []
    for _ in range(repeats):
        _wait(device)
        began_s = time.perf_counter()
        result = run()
        _wait(device)
        seconds.append(time.perf_counter() - began_s)
    return float(np.median(seconds)), result


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
