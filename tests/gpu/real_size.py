"""The released networks at their real size with weights of the golden recipe, and a small stand-in for the CPU.

Weights are written as a bundle, so that the engine loads them as it loads the released ones.
"""

from __future__ import annotations

import runpy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from fastfit_watch.bench import weights
from fastfit_watch.bench.person import StandingPerson
from fastfit_watch.domain.look import Category
from fastfit_watch.engine.parsers.densepose import DensePose
from fastfit_watch.engine.parsers.densepose_network import DensePoseNetwork
from fastfit_watch.engine.parsers.parsing import Parsing
from fastfit_watch.engine.parsers.schp import LABELS, SCHP, Dataset
from fastfit_watch.engine.parsers.schp_network import AugmentCE2P

_RECIPE = Path(__file__).parents[1] / "golden" / "fill_recipe.py"
_RECORDED = Path(__file__).parents[1] / "support" / "recorded_densepose.py"
_SEED = 1234

REAL, SMALL = weights.REAL, replace(weights.SMALL, person=(256, 192), accessory=(128, 96))


def fill(network: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """The recipe's weights for all tensors of a network, float32; drawn by several threads, as numpy lets them."""
    draw = runpy.run_path(str(_RECIPE))["draw_value"]

    def one(item: tuple[str, torch.Tensor]) -> tuple[str, torch.Tensor]:
        name, tensor = item
        if name.endswith("num_batches_tracked"):
            return name, torch.zeros(tensor.shape, dtype=torch.int64)
        value = draw(name, tuple(tensor.shape), seed)
        if name.endswith("running_mean"):
            value = value - 1  # the recipe takes it for a norm's gain
        return name, torch.from_numpy(np.ascontiguousarray(value, np.float32)).reshape(tensor.shape)

    with ThreadPoolExecutor() as threads:
        return dict(threads.map(one, network.state_dict().items()))


def write_bundle(root: Path, scale: weights.Scale) -> Path:
    """Write UNet and VAE of this scale as a new bundle with the mini parser, float32."""
    return weights.store_bundle(root, scale, "meta", partial(fill, seed=_SEED))


def load_densepose(device: str) -> DensePose:
    """DensePose with the weights of its recording, not the recipe's: with those it sees nobody."""
    recorded = runpy.run_path(str(_RECORDED))
    network: DensePoseNetwork = recorded["build_network"](recorded["read_golden"]())
    return DensePose(network.to(device))


def draw_body(height: int, width: int) -> NDArray[np.uint8]:
    """A picture, uint8 RGB, in which `load_densepose` sees people: that of its recording, enlarged."""
    picture = runpy.run_path(str(_RECORDED))["read_golden"]()["image_bgr"][:, :, ::-1]
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def load_schp(dataset: Dataset, device: str) -> SCHP:
    """SCHP with the recipe's weights."""
    with torch.device("meta"):
        network = AugmentCE2P(LABELS[dataset].classes)
    network.load_state_dict(fill(network, _SEED), assign=True)
    return SCHP(network.to(device), dataset)


class KnownPerson(StandingPerson):
    """Sees a standing person in every picture. The real-size parsers, if it has them, run too, and are not believed."""

    def __init__(self, densepose: DensePose | None, parsers: tuple[SCHP, ...]) -> None:
        self._densepose, self._parsers = densepose, parsers
        first = () if densepose is None else (densepose.network,)
        self.networks = (*first, *(parser.network for parser in parsers))

    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """As a `StandingPerson`, whatever the networks see."""
        if self._densepose is not None:
            self._densepose.label(image)
        for parser in self._parsers:
            parser.parse(image)
        return super().parse(image)


def draw_outfit() -> dict[Category, Image.Image]:
    """Two garments, shoes and a bag."""
    slots = (Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG)
    return {slot: weights.draw_picture(number) for number, slot in enumerate(slots, start=1)}
