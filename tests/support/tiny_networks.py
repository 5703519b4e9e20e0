"""Small networks with random weights for the engine's tests, and a bundle of them on disk."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from fastfit_watch.bench.person import StandingPerson
from fastfit_watch.engine.bundle import Bundle
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.parsers.mini import MiniParserNetwork
from fastfit_watch.engine.parsers.parsing import Parsing
from fastfit_watch.engine.tryon import TryOnEngine

GOLDEN = Path(__file__).parents[1] / "golden"
_recipe = runpy.run_path(str(GOLDEN / "fill_recipe.py"))
fill, _draw_value = _recipe["fill"], _recipe["draw_value"]

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
    """A UNet with recipe weights, which are drawn once: torch draws none of its own before."""
    with init_empty_weights():
        unet = FastFitUNet.from_config_dict(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    weights = {name: torch.from_numpy(_draw_value(name, shape, seed)) for name, shape in shapes.items()}
    unet.load_state_dict(weights, assign=True)
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


def load_engine(root: Path) -> TryOnEngine:
    """The engine of a bundle written here, with `DrawnParser` in its parser's place."""
    return replace(TryOnEngine.load(Bundle.open(root), "cpu"), parser=DrawnParser())


class DrawnParser(StandingPerson):
    """Sees a standing person in every picture but a black one, which has nobody in it."""

    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """As a `StandingPerson`, or nobody."""
        if image.any():
            return super().parse(image)
        nobody = np.zeros(image.shape[:2], np.uint8)
        return Parsing(np.zeros((*nobody.shape, 3), np.uint8), nobody, nobody, nobody)


def _write_network(folder: Path, config: dict[str, Any], network: nn.Module, name: str = _WEIGHTS) -> None:
    _write_json(folder / "config.json", config)
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / name)


def _write_json(path: Path, entries: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
