"""Small networks with random weights for the engine's tests, and a bundle of them on disk."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from fastfit_watch.engine.bundle import Bundle
from fastfit_watch.engine.mini_parser import MiniParserNetwork
from fastfit_watch.engine.parsing import Parsing
from fastfit_watch.engine.tryon import FastFitEngine
from fastfit_watch.engine.unet import FastFitUNet

GOLDEN = Path(__file__).parents[1] / "golden"
fill = runpy.run_path(str(GOLDEN / "fill_recipe.py"))["fill"]

PERSON_SIZE = (96, 72)
_PARSER_WIDTHS = (8, 8, 8, 8, 8, 8)
_WEIGHTS = "diffusion_pytorch_model.safetensors"
Vectors = dict[str, NDArray[Any]]


def read_vectors(name: str) -> Vectors:
    """All arrays of a golden file."""
    with np.load(GOLDEN / name) as stored:
        return dict(stored)


def read_meta(vectors: Vectors) -> dict[str, Any]:
    """How a golden pipeline run was set up."""
    return dict(json.loads(str(vectors["meta_json"])))


def make_unet(config: dict[str, Any], seed: int) -> FastFitUNet:
    """A UNet with recipe weights."""
    unet = FastFitUNet.from_config_dict(config)
    fill(unet, seed)
    unet.eval().requires_grad_(False)
    return unet


def make_vae(config: dict[str, Any], seed: int) -> AutoencoderKL:
    """A VAE with recipe weights."""
    vae = AutoencoderKL(**config)
    fill(vae, seed)
    return vae.eval().requires_grad_(False)


def write_bundle(root: Path) -> Path:
    """Write a whole bundle: the golden pipelines' networks and a mini parser that knows nothing, all float16."""
    meta = read_meta(read_vectors("pipeline_cfg1.npz"))
    _write_json(
        root / "bundle.json",
        {
            "name": "tiny",
            "revision": "1",
            "licence": "none",
            "person_size": list(PERSON_SIZE),
            "garment_size": [64, 48],
            "accessory_size": [32, 24],
            "parser": "mini",
        },
    )
    _write_json(root / "scheduler" / "scheduler_config.json", meta["scheduler"])
    unet = make_unet(meta["unet_config"], meta["unet_fill_seed"])
    _write_network(root / "unet", meta["unet_config"], unet)
    _write_network(root / "vae", meta["vae_config"], make_vae(meta["vae_config"], meta["vae_fill_seed"]))
    parser = MiniParserNetwork(_PARSER_WIDTHS)
    fill(parser, 1)
    _write_network(root / "parser", {"widths": _PARSER_WIDTHS, "height": PERSON_SIZE[0]}, parser, "model.safetensors")
    return root


def load_engine(root: Path) -> FastFitEngine:
    """The engine of a bundle written here, with `DrawnParser` in its parser's place."""
    return replace(FastFitEngine.load(Bundle.open(root), "cpu"), parser=DrawnParser())


class DrawnParser:
    """Sees a standing person in every picture: head, shirt, trousers, shoes and a bag, in fixed shares of its size.

    A black picture has nobody in it.
    """

    networks: tuple[nn.Module, ...] = ()

    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """Label fixed boxes; the pose is a red spine."""
        height, width = image.shape[:2]
        maps = {name: np.zeros((height, width), np.uint8) for name in ("densepose", "lip", "atr")}
        pose = np.zeros((height, width, 3), np.uint8)
        if not image.any():
            return Parsing(pose, **maps)
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
        pose[height // 5 : height // 2, 9 * width // 20 : 11 * width // 20] = (255, 0, 0)
        return Parsing(pose, **maps)


def _write_network(folder: Path, config: dict[str, Any], network: nn.Module, name: str = _WEIGHTS) -> None:
    _write_json(folder / "config.json", config)
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / name)


def _write_json(path: Path, entries: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
