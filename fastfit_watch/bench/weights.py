"""Seeded weights at the released size, written as a bundle, and pictures to dress: nothing needs to be downloaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from fastfit_watch.engine.bundle import SHIPPED_MINI
from fastfit_watch.engine.networks.unet import FastFitUNet

_SEED = 1234
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_BLOCKS = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]


@dataclass(frozen=True)
class Scale:
    """How large the networks and pictures are; sizes are (height, width)."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    person: tuple[int, int]
    accessory: tuple[int, int]


def _scale(
    unet: list[int], unet_layers: int, heads: int, vae: list[int], person: tuple[int, int], accessory: tuple[int, int]
) -> Scale:
    return Scale(
        {
            "in_channels": 9,
            "out_channels": 4,
            "block_out_channels": unet,
            "down_block_types": _BLOCKS,
            "layers_per_block": unet_layers,
            "attention_head_dim": heads,
            "cross_attention_dim": None,
            "num_class_embeds": 5,
            "sample_size": 64,
        },
        {
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "block_out_channels": vae,
            "layers_per_block": unet_layers,
            "latent_channels": 4,
            "scaling_factor": 0.18215,
        },
        person,
        accessory,
    )


REAL = _scale([320, 640, 1280, 1280], 2, 8, [128, 256, 512, 512], (1024, 768), (512, 384))
SMALL = _scale([32, 32, 64, 64], 1, 4, [32, 32, 32, 32], (128, 96), (64, 48))
"""The same in small, to try the command itself on a CPU; its times mean nothing."""


def write_bundle(root: Path, scale: Scale, device: str) -> Path:
    """Write UNet and VAE of this scale with seeded random weights, bfloat16, and the mini parser and scheduler."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        return store_bundle(root, scale, device, _in_half)


def store_bundle(root: Path, scale: Scale, device: str, weights_of: Callable[[nn.Module], dict[str, Tensor]]) -> Path:
    """Write a new bundle of this scale with the mini parser and scheduler.

    device : where the networks are made. weights_of : the tensors to store of each, on the CPU.
    """
    root.mkdir(parents=True)
    for part in ("parser", "scheduler"):
        shutil.copytree(SHIPPED_MINI / part, root / part)
    facts = {
        "name": "bench",
        "revision": str(_SEED),
        "licence": "none",
        "person_size": scale.person,
        "garment_size": scale.person,
        "accessory_size": scale.accessory,
        "parser": "mini",
    }
    (root / "bundle.json").write_text(json.dumps(facts), encoding="utf-8")
    with torch.device(device):
        networks = {"unet": FastFitUNet.from_config_dict(scale.unet), "vae": AutoencoderKL(**scale.vae)}
    for (name, network), config in zip(networks.items(), (scale.unet, scale.vae), strict=True):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(weights_of(network), root / name / _WEIGHTS)
    return root


def draw_picture(seed: int, height: int = 1200, width: int = 900) -> Image.Image:
    """Coloured patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def _in_half(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", torch.bfloat16) for key, value in network.state_dict().items()}
