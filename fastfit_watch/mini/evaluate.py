"""Measure the `mini` bundle on held-out looks: garment identity, likeness to the truth, untouched surroundings, time.

    python -m fastfit_watch.mini.evaluate --looks 200 --json evaluation.json --sheet sheet.png

A look with a whole outfit is made with `mask: full`; a partial one with `mask: worn`, since nobody could guess what
the rest of a hidden outfit looked like.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import structural_similarity

from fastfit_watch.domain.look import Category, MaskMode, Preset, SamplingOptions
from fastfit_watch.engine.bundle import SHIPPED_MINI, Bundle
from fastfit_watch.engine.tryon import TryOnEngine
from fastfit_watch.mini.drawing.figures import DrawnLook, draw_look
from fastfit_watch.mini.feed import HELD_OUT_SEEDS
from fastfit_watch.mini.measures import compare

Picture = NDArray[np.uint8]
WHOLE_OUTFITS = (
    {Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG},
    {Category.DRESS, Category.SHOE, Category.BAG},
)
RIVALS = 9
_DIRECTIONS = 24
_QUANTILES = 64
_RIGHT_LENGTH = 0.05
_SMALLEST_REGION_PX = 40  # a garment almost hidden behind another one says nothing about identity


@dataclass(frozen=True)
class Evaluation:
    """What one run measured. `identity` maps a slot to (looks that chose their own garment, looks judged).

    Of the rest see `measures.Likeness`: means over the looks, shares of all skin, hands and lengths that were judged;
    a length is right within 5 % of the person's height.
    """

    looks: int
    identity: dict[str, tuple[int, int]]
    ssim_mean: float
    ssim_worst: float
    ssim_inside: float
    background_error: float
    edge_step: float
    edge_step_truth: float
    skin: float
    hands: float
    lengths_by_colour: float
    lengths_by_parser: float
    lengths_of_truth: float
    outside_untouched: bool
    repeats_equal: bool
    seconds_median: float

    def share(self, slot: str) -> float:
        """Share of looks whose dressed region is nearest to its own garment."""
        own, judged = self.identity[slot]
        return own / judged


def evaluate(
    engine: TryOnEngine, seeds: Sequence[int], steps: int | None = None, preset: Preset = Preset.EXACT
) -> tuple[Evaluation, list[Picture]]:
    """Run held-out looks through the engine; returns the figures and the pictures, uint8 (H, W, 3).

    steps : None takes the preset's own number.
    """
    looks = draw_looks(engine.bundle, seeds)
    pictures, found, seconds, untouched = [], [], [], True
    for seed, look in zip(seeds, looks, strict=True):
        started_s = time.perf_counter()
        prepared = engine.prepare(*inputs(look), options_of(look, seed, steps, preset))
        picture = np.asarray(engine.sample(prepared).image)
        seconds.append(time.perf_counter() - started_s)
        outside = np.asarray(prepared.mask) < 128
        untouched &= bool(np.array_equal(picture[outside], look.person[outside]))
        pictures.append(picture)
        found.append(compare(look, picture, prepared.mask, lambda image: engine.parser.parse(image).lip))
    again = engine.try_on(*inputs(looks[0]), options_of(looks[0], seeds[0], steps, preset))
    return (
        Evaluation(
            len(looks),
            identity(looks, pictures),
            float(np.mean([likeness.ssim for likeness in found])),
            min(likeness.ssim for likeness in found),
            float(np.mean([likeness.ssim_inside for likeness in found])),
            float(np.nanmean([likeness.background_error for likeness in found])),
            float(np.nanmean([likeness.edge_step for likeness in found])),
            float(np.nanmean([likeness.edge_step_truth for likeness in found])),
            _share(flag for likeness in found for flag in likeness.skin),
            _share(flag for likeness in found for flag in likeness.hands),
            _share(length <= _RIGHT_LENGTH for likeness in found for length in likeness.lengths_by_colour),
            _share(length <= _RIGHT_LENGTH for likeness in found for length in likeness.lengths_by_parser),
            _share(length <= _RIGHT_LENGTH for likeness in found for length in likeness.lengths_of_truth),
            untouched,
            bool(np.array_equal(np.asarray(again.image), pictures[0])),
            float(np.median(seconds)),
        ),
        pictures,
    )


def draw_looks(bundle: Bundle, seeds: Iterable[int]) -> list[DrawnLook]:
    """Held-out looks at a bundle's sizes."""
    sizes = bundle.person_size, bundle.garment_size, bundle.accessory_size
    return [draw_look(seed, None, *sizes) for seed in seeds]


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else float("nan")


def inputs(look: DrawnLook) -> tuple[Image.Image, dict[Category, Image.Image]]:
    """The pictures a user would upload for a drawn look."""
    garments = {category: Image.fromarray(picture) for category, picture in look.garments.items()}
    return Image.fromarray(look.person), garments


def options_of(look: DrawnLook, seed: int, steps: int | None, preset: Preset = Preset.EXACT) -> SamplingOptions:
    """Whole outfits repaint the whole outfit; partial ones only their own region."""
    whole = set(look.garments) in WHOLE_OUTFITS
    mask = MaskMode.FULL if whole else MaskMode.WORN
    return SamplingOptions(steps=steps or preset.steps, seed=seed, mask=mask, preset=preset)


def compare_presets(engine: TryOnEngine, seeds: Sequence[int]) -> None:
    """Print what each preset costs in quality and saves in time, on the same looks and seeds."""
    heads = {"preset": 8, "steps": 6, "own garment": 13, "SSIM to truth": 15, "to exact": 10, "seconds": 9, "times": 7}
    print("".join(f"{head:>{width}}" for head, width in heads.items()))
    exact: tuple[Evaluation, list[Picture]] | None = None
    for preset in Preset:
        result, pictures = evaluate(engine, seeds, preset=preset)
        exact = exact or (result, pictures)
        own, judged = (sum(counts) for counts in zip(*result.identity.values(), strict=True))
        pairs = zip(pictures, exact[1], strict=True)
        likeness = float(np.mean([structural_similarity(one, other, channel_axis=2) for one, other in pairs]))
        print(
            f"{preset:8}{preset.steps:6}{own / max(judged, 1):13.1%}{result.ssim_mean:15.4f}{likeness:10.4f}"
            f"{result.seconds_median:9.2f}{exact[0].seconds_median / result.seconds_median:7.1f}"
        )


def identity(looks: Sequence[DrawnLook], pictures: Sequence[Picture]) -> dict[str, tuple[int, int]]:
    """For every slot: how often the dressed region is nearer to its own garment than to nine random others."""
    chooser = np.random.default_rng(0)
    result: dict[str, tuple[int, int]] = {}
    for category in Category:
        wearers = [index for index, look in enumerate(looks) if category in look.garments]
        flat_lays = {index: (looks[index].garments[category], looks[index].laid[category] > 0) for index in wearers}
        signatures = {index: signature(*flat_lay) for index, flat_lay in flat_lays.items()}
        own, judged = 0, 0
        for index in wearers:
            region = looks[index].worn == category.label + 1
            if region.sum() < _SMALLEST_REGION_PX or len(wearers) <= RIVALS:
                continue
            rivals = chooser.choice([other for other in wearers if other != index], RIVALS, replace=False)
            seen = signature(pictures[index], region)
            distances = [distance(seen, signatures[other]) for other in (index, *rivals)]
            own, judged = own + (int(np.argmin(distances)) == 0), judged + 1
        result[category.value] = own, judged
    return result


def signature(picture: Picture, region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Colour distribution of a region: quantiles of its Lab colours along fixed directions, (directions, quantiles)."""
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[region].astype(np.float64)
    axes = np.random.default_rng(1).standard_normal((3, _DIRECTIONS))
    axes /= np.linalg.norm(axes, axis=0)
    return np.asarray(np.quantile(lab @ axes, np.linspace(0.02, 0.98, _QUANTILES), axis=0).T)


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Sliced Wasserstein-1 distance (Bonneel et al. 2015) between two signatures, in Lab units."""
    return float(np.abs(one - other).mean())


def draw_sheet(looks: Sequence[DrawnLook], pictures: Sequence[Picture]) -> Image.Image:
    """A page for the eye: person, garments, result and truth, one row a look."""
    height, width = looks[0].person.shape[:2]
    page = Image.new("RGB", (width * 7, height * len(looks)), "white")
    for row, (look, picture) in enumerate(zip(looks, pictures, strict=True)):
        cells = [look.person, *look.garments.values()]
        for column, cell in enumerate(cells):
            page.paste(Image.fromarray(cell), (column * width, row * height))
        page.paste(Image.fromarray(picture), (5 * width, row * height))
        page.paste(Image.fromarray(look.truth), (6 * width, row * height))
    return page


def _print_table(result: Evaluation) -> None:
    rows: dict[str, str] = defaultdict(str)
    for slot, (own, judged) in result.identity.items():
        rows[f"own garment nearest of 10: {slot}"] = f"{own} of {judged} ({own / max(judged, 1):.1%})"
    rows["mean SSIM to the truth"] = f"{result.ssim_mean:.4f} (worst {result.ssim_worst:.4f})"
    rows["SSIM inside the mask"] = f"{result.ssim_inside:.4f}"
    rows["background in the mask, of 255"] = f"{result.background_error:.2f}"
    rows["step at the mask's edge, of 255"] = f"{result.edge_step:.2f} (the drawing's own {result.edge_step_truth:.2f})"
    rows["skin, hands present"] = f"{result.skin:.1%}, {result.hands:.1%}"
    rows["hems and sleeves right, by colour"] = f"{result.lengths_by_colour:.1%} (truth {result.lengths_of_truth:.1%})"
    rows["hems and sleeves right, by parser"] = f"{result.lengths_by_parser:.1%}"
    rows["outside the mask untouched"] = str(result.outside_untouched)
    rows["same seed, same bytes"] = str(result.repeats_equal)
    rows["seconds per picture (median)"] = f"{result.seconds_median:.2f}"
    for name, value in rows.items():
        print(f"{name:36} {value}")


def main() -> None:
    """Evaluate a bundle and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_MINI)
    parser.add_argument("--looks", type=int, default=200)
    parser.add_argument("--steps", type=int, help="denoising steps (default: the preset's)")
    parser.add_argument("--preset", type=Preset, default=Preset.EXACT, help="exact, fast or draft")
    parser.add_argument("--compare-presets", action="store_true", help="print all presets side by side, nothing else")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="write the first 24 looks as one picture")
    options = parser.parse_args()
    engine = TryOnEngine.load(Bundle.open(options.bundle), options.device)
    seeds = range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + options.looks)
    if options.compare_presets:
        compare_presets(engine, seeds)
        return
    result, pictures = evaluate(engine, seeds, options.steps, options.preset)
    _print_table(result)
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    if options.sheet:
        draw_sheet(draw_looks(engine.bundle, seeds[:24]), pictures[:24]).save(options.sheet)


if __name__ == "__main__":
    main()
