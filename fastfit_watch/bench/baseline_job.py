"""A job as the published script would do it: one picture after another, every file opened and every step done anew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from fastfit_watch.bench.baseline import PublishedBaseline
from fastfit_watch.bench.weights import draw_picture
from fastfit_watch.domain.look import Category, Framing, SamplingOptions
from fastfit_watch.engine.noise import SeededNoise, draw_posterior_noise
from fastfit_watch.engine.pixels import cover_person
from fastfit_watch.engine.preprocessing.garments import fit_garment
from fastfit_watch.engine.preprocessing.person import mask_person, parse_person
from fastfit_watch.engine.tryon import TryOnEngine

_WARM_UPS = 1


def time_plain_job(
    baseline: PublishedBaseline,
    engine: TryOnEngine,
    people: int,
    slots: Sequence[Category],
    options: SamplingOptions,
    folder: Path,
) -> float:
    """Seconds for each picture of `people` persons in one outfit: files in, PNG files out. The first is not counted.

    Parser, sizes and mask are the engine's; networks and the order of work are the rival's.
    """
    folder.mkdir(parents=True)
    for person in range(people + _WARM_UPS):
        draw_picture(50 + person).save(folder / f"person{person}.jpg", quality=92)
    for slot in slots:
        draw_picture(1000 + slot.label).save(folder / f"{slot.value}.png")
    began_s = 0.0
    for person in range(people + _WARM_UPS):
        if person == _WARM_UPS:
            began_s = time.perf_counter()
        picture = _dress(baseline, engine, folder / f"person{person}.jpg", slots, options)
        picture.save(folder / f"person{person}.dressed.png")
    return (time.perf_counter() - began_s) / people


@torch.inference_mode()
def _dress(
    baseline: PublishedBaseline, engine: TryOnEngine, path: Path, slots: Sequence[Category], options: SamplingOptions
) -> Image.Image:
    bundle = engine.bundle
    parsed = parse_person(_open(path), Framing.CROP, engine.parser, bundle.person_size)
    person = mask_person(parsed, slots, options.mask)
    garments = {
        slot: fit_garment(_open(path.parent / f"{slot.value}.png"), bundle.garment_sizes[slot]) for slot in slots
    }
    height, width = (side // baseline.stride for side in bundle.person_size)
    noise, shape = SeededNoise(options.seed or 0), (1, 4, height, width)
    drawn = torch.stack([noise.initial(shape), *(noise.step(index, shape) for index in range(options.steps))])
    posterior = {"person": draw_posterior_noise("person", (person.picture, person.mask, person.pose), shape)}
    for slot, pixels in garments.items():
        size = tuple(side // baseline.stride for side in pixels.shape[:2])
        posterior[slot] = draw_posterior_noise(slot, (pixels,), (1, 4, *size))
    covered = cover_person(person.picture, person.mask, person.pose)
    made = baseline.dress(
        person.picture, covered, person.mask, garments, options.steps, options.guidance, drawn, posterior
    )
    return Image.fromarray(made)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
