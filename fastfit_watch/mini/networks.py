"""The shapes of the `mini` bundle's networks, and its files on disk: the same layout as the released bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn

from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.parsers.mini import MiniParserNetwork
from fastfit_watch.mini.feed import ACCESSORY_SIZE, PERSON_SIZE

PARSER_CONFIG: dict[str, Any] = {"widths": [16, 32, 48, 64, 96, 96], "height": 256}
VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [24, 48, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
    "sample_size": PERSON_SIZE[0],
}
UNET_CONFIG: dict[str, Any] = {
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": [32, 64, 160, 192],
    "down_block_types": ["DownBlock2D"] * 2 + ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"] * 2,
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": None,
    "norm_num_groups": 8,
    "num_class_embeds": 5,
    "sample_size": PERSON_SIZE[0] // 4,
}
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
BUNDLE: dict[str, Any] = {
    "name": "mini",
    "revision": "4",
    "licence": "Apache-2.0",
    "person_size": list(PERSON_SIZE),
    "garment_size": list(PERSON_SIZE),
    "accessory_size": list(ACCESSORY_SIZE),
    "parser": "mini",
    "blend": "seamless",
}
WEIGHTS = {
    "parser": "parser/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
}


def build(stage: str) -> nn.Module:
    """A fresh, untrained network for `parser`, `vae` or `unet`."""
    if stage == "parser":
        return MiniParserNetwork(tuple(PARSER_CONFIG["widths"]))
    if stage == "vae":
        return AutoencoderKL(**VAE_CONFIG)  # type: ignore[no-any-return]
    return FastFitUNet.from_config_dict(UNET_CONFIG)


def load_stage(folder: Path, stage: str, device: str) -> nn.Module:
    """The network of a stage as last saved in `folder`, or a fresh one; float32 on `device`."""
    network = build(stage)
    saved = folder / WEIGHTS[stage]
    if saved.exists():
        network.load_state_dict({name: value.float() for name, value in load_file(saved).items()})
    return network.to(device)


def save_stage(folder: Path, stage: str, weights: dict[str, torch.Tensor], extra: dict[str, Any] | None = None) -> None:
    """Write a stage's weights (as float16) and configuration. `extra` joins what the configuration has already."""
    path = folder / WEIGHTS[stage]
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_json(path.parent / "config.json")
    config = known | {"parser": PARSER_CONFIG, "vae": VAE_CONFIG, "unet": UNET_CONFIG}[stage] | (extra or {})
    unfinished = path.with_suffix(".unfinished")
    save_file({name: value.detach().half().contiguous().cpu() for name, value in weights.items()}, unfinished)
    unfinished.replace(path)
    write_json(path.parent / "config.json", config)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    write_json(folder / "bundle.json", BUNDLE)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file does not exist yet."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object whole, or leave the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
