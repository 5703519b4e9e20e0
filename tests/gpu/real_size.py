"""The released networks at their real size with weights of the golden recipe, and a small stand-in for the CPU.

Weights are written as a bundle, so that the engine loads them as it loads the released ones.
"""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fastfit_watch.engine.bundle import SHIPPED_MINI
from fastfit_watch.engine.parsing import Parsing
from fastfit_watch.engine.toolkit.densepose import DensePose
from fastfit_watch.engine.toolkit.densepose_network import DensePoseNetwork
from fastfit_watch.engine.toolkit.schp import LABELS, SCHP, Dataset
from fastfit_watch.engine.toolkit.schp_network import AugmentCE2P
from fastfit_watch.engine.unet import FastFitUNet
from fastfit_watch.look import Category

_RECIPE = Path(__file__).parents[1] / "golden" / "fill_recipe.py"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SEED = 1234

_UNET = {
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": None,
    "norm_num_groups": 32,
    "num_class_embeds": 5,
    "sample_size": 64,
}
_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}


@dataclass(frozen=True)
class Scale:
    """How large everything is. Sizes are (height, width)."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    person: tuple[int, int]
    accessory: tuple[int, int]
    steps: int


REAL = Scale(_UNET, _VAE, (1024, 768), (512, 384), 30)
SMALL = Scale(
    _UNET | {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1, "attention_head_dim": 4},
    _VAE | {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1},
    (256, 192),
    (128, 96),
    3,
)


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


def write_bundle(root: Path, scale: Scale) -> Path:
    """Write UNet and VAE of this scale as a new bundle with the mini parser, float32."""
    root.mkdir()
    shutil.copytree(SHIPPED_MINI / "parser", root / "parser")
    shutil.copytree(SHIPPED_MINI / "scheduler", root / "scheduler")
    facts = {
        "name": "recipe",
        "revision": str(_SEED),
        "licence": "none",
        "person_size": scale.person,
        "garment_size": scale.person,
        "accessory_size": scale.accessory,
        "parser": "mini",
    }
    (root / "bundle.json").write_text(json.dumps(facts), encoding="utf-8")
    with torch.device("meta"):
        networks = {"unet": FastFitUNet.from_config_dict(scale.unet), "vae": AutoencoderKL(**scale.vae)}
    for (name, network), config in zip(networks.items(), (scale.unet, scale.vae), strict=True):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(fill(network, _SEED), root / name / _WEIGHTS)
    return root


def load_densepose(device: str) -> DensePose:
    """DensePose with the recipe's weights."""
    with torch.device("meta"):
        network = DensePoseNetwork()
    network.load_state_dict(fill(network, _SEED), assign=True)
    return DensePose(network.requires_grad_(False).to(device))


def load_schp(dataset: Dataset, device: str) -> SCHP:
    """SCHP with the recipe's weights."""
    with torch.device("meta"):
        network = AugmentCE2P(LABELS[dataset].classes)
    network.load_state_dict(fill(network, _SEED), assign=True)
    return SCHP(network.to(device), dataset)


class KnownPerson:
    """Sees a standing person in every picture. The real-size parsers, if it has them, run too, and are not believed."""

    def __init__(self, densepose: DensePose | None, parsers: tuple[SCHP, ...]) -> None:
        self._densepose, self._parsers = densepose, parsers

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All that lies on the device."""
        densepose = () if self._densepose is None else (self._densepose.network,)
        return (*densepose, *(parser.network for parser in self._parsers))

    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """Label fixed boxes: head, shirt, trousers, shoes and a bag; the pose is a red spine."""
        if self._densepose is not None:
            self._densepose.label(image)
        for parser in self._parsers:
            parser.parse(image)
        height, width = image.shape[:2]
        maps = {name: np.zeros((height, width), np.uint8) for name in ("densepose", "lip", "atr")}
        # top, bottom, left, right as shares of the picture; then DensePose, LIP and ATR labels
        for top, bottom, left, right, *labels in (
            (0.05, 0.20, 0.40, 0.60, 23, 13, 11),
            (0.20, 0.50, 0.30, 0.70, 1, 5, 4),
            (0.50, 0.85, 0.35, 0.65, 7, 9, 6),
            (0.85, 0.92, 0.35, 0.50, 5, 18, 9),
            (0.85, 0.92, 0.50, 0.65, 6, 19, 10),
            (0.45, 0.60, 0.72, 0.85, 0, 0, 16),
        ):
            rows = slice(int(top * height), int(bottom * height))
            columns = slice(int(left * width), int(right * width))
            for name, label in zip(maps, labels, strict=True):
                maps[name][rows, columns] = label
        pose = np.zeros((height, width, 3), np.uint8)
        pose[height // 5 : height // 2, 9 * width // 20 : 11 * width // 20] = (255, 0, 0)
        return Parsing(pose, **maps)


def draw_picture(seed: int, height: int, width: int) -> Image.Image:
    """Coloured patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def draw_outfit() -> dict[Category, Image.Image]:
    """Two garments, shoes and a bag."""
    slots = (Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG)
    return {slot: draw_picture(number, 1200, 900) for number, slot in enumerate(slots, start=1)}
