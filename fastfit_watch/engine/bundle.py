"""A bundle: one directory of weights with its sizes, and the networks built from it.

    bundle.json    name, revision, licence, sizes as [height, width], the kind of parser and, if it likes, of blend
    scheduler/     scheduler_config.json
    vae/  unet/    config.json and diffusion_pytorch_model.safetensors
    parser/        the parser's own files

Weights are read from safetensors; torch's own files are read without running what is inside them, and converted once.
They may be stored smaller (float16) than they are used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.domain.look import Category
from fastfit_watch.engine.blending import Blend
from fastfit_watch.engine.networks.group_norm import keep_group_norms_precise
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.noise_schedule import NoiseSchedule
from fastfit_watch.engine.parsers.checkpoints import read_weights
from fastfit_watch.engine.parsers.parsing import HumanParser
from fastfit_watch.engine.pixels import Size

SHIPPED_MINI = Path(__file__).parents[1] / "mini" / "weights"
"""The small bundle that comes with the package."""

Network = TypeVar("Network", bound=nn.Module)

_INSTALL_AGAIN = "Fetch or install the bundle again; what is already whole is kept."
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SIZE_STEP_PX = 8  # a latent covers 8 x 8 pixels
# Names of the VAE's attention layers in files written before diffusers 0.15.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class ParserKind(StrEnum):
    """Who parses people: the three published networks, or the small one for drawn figures."""

    HUMAN_TOOLKIT = "human-toolkit"
    MINI = "mini"


@dataclass(frozen=True)
class Bundle:
    """What `bundle.json` says. Sizes are (height, width) in pixels.

    Attributes
    ----------
    root : the directory.
    name, revision : which weights these are; both go into reports.
    licence : of the weights, for people to read.
    person_size : what the model paints.
    garment_size : of upper, lower and dress. accessory_size : of shoe and bag.
    parser : which parser lies in `parser/`.
    blend : how a made picture joins the photograph.
    """

    root: Path
    name: str
    revision: str
    licence: str
    person_size: Size
    garment_size: Size
    accessory_size: Size
    parser: ParserKind
    blend: Blend = Blend.PUBLISHED

    @classmethod
    def open(cls, root: Path) -> Bundle:
        """Read `bundle.json`. Weights are read later, by the `load_` functions.

        Raises
        ------
        BundleError : the file is missing, damaged, or lacks something.
        """
        path = root / "bundle.json"
        entries = _read_json(path)
        kind = _text(path, entries, "parser")
        if kind not in list(ParserKind):
            raise BundleError(f"{path} names an unknown parser {kind!r}.", hint="Known: human-toolkit, mini.")
        blend = entries.get("blend", Blend.PUBLISHED)
        if blend not in list(Blend):
            raise BundleError(f"{path} names an unknown blend {blend!r}.", hint="Known: published, seamless.")
        return cls(
            root,
            name=_text(path, entries, "name"),
            revision=_text(path, entries, "revision"),
            licence=_text(path, entries, "licence"),
            person_size=_size(path, entries, "person_size"),
            garment_size=_size(path, entries, "garment_size"),
            accessory_size=_size(path, entries, "accessory_size"),
            parser=ParserKind(kind),
            blend=Blend(blend),
        )

    @property
    def garment_sizes(self) -> dict[Category, Size]:
        """The size each slot's picture is fitted to."""
        return {slot: self.accessory_size if slot.is_accessory else self.garment_size for slot in Category}


def load_unet(bundle: Bundle, device: str, dtype: torch.dtype) -> FastFitUNet:
    """Build the UNet with its weights. Raises BundleError."""
    folder = bundle.root / "unet"
    with torch.device("meta"):
        unet = _build(folder, FastFitUNet.from_config_dict)
    path = _find_weights(folder)
    _fill(unet, path, _read_weights(path), device, dtype)
    return unet


def load_vae(bundle: Bundle, device: str, dtype: torch.dtype) -> AutoencoderKL:
    """Build the VAE with its weights. Raises BundleError."""
    folder = bundle.root / "vae"
    with torch.device("meta"):
        vae = _build(folder, AutoencoderKL.from_config)
    path = _find_weights(folder)
    weights = {_modern_name(name): value for name, value in _read_weights(path).items()}
    _fill(vae, path, weights, device, dtype)
    return vae


def load_scheduler(bundle: Bundle) -> DDPMScheduler:
    """Build the scheduler from its own file, since every number of a picture depends on it.

    Raises
    ------
    BundleError : the file is missing or damaged, or describes a schedule that `sampling` does not follow.
    """
    path = bundle.root / "scheduler" / "scheduler_config.json"
    config = _read_json(path)
    try:
        scheduler = DDPMScheduler.from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BundleError(f"{path} does not describe a schedule: {error}.", hint=_INSTALL_AGAIN) from error
    NoiseSchedule.of(scheduler, steps=1)  # an unsupported schedule shows now, not in the first look
    return scheduler


def load_parser(
    bundle: Bundle, device: str, dtype: torch.dtype, pose_device: str = "cpu", densepose: str = "builtin"
) -> HumanParser:
    """Build the parser that this bundle's people are parsed with. densepose : see `HumanToolkit.load`.

    Raises
    ------
    BundleError : its files are missing or damaged. EngineError : `pose_device` is a GPU that DWPose cannot use, or
        detectron2 is wanted and not installed.
    """
    folder = bundle.root / "parser"
    if bundle.parser is ParserKind.MINI:
        from fastfit_watch.engine.parsers.mini import MiniParser

        return MiniParser.load(folder, device, dtype)
    # OpenCV's and ONNX Runtime's share of the toolkit is heavy; a mini bundle never needs it.
    from fastfit_watch.engine.parsers.human_toolkit import HumanToolkit

    return HumanToolkit.load(folder, device, dtype, pose_device, densepose)


def _build(folder: Path, make: Callable[[dict[str, Any]], Network]) -> Network:
    """Make a network from `config.json`."""
    path = folder / "config.json"
    config = _read_json(path)
    try:
        return make(config)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise BundleError(f"{path} does not describe a network: {error}.", hint=_INSTALL_AGAIN) from error


def _fill(network: nn.Module, path: Path, weights: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> None:
    """Give a network without memory its weights, all of them and no others, on `device` in `dtype`."""
    # Copied even where nothing changes: the file is mapped, and writing over it would damage the running network.
    placed = {name: value.to(device, dtype, copy=True) for name, value in weights.items()}
    try:
        network.load_state_dict(placed, strict=True, assign=True)
    except RuntimeError as error:
        missing = sorted(network.state_dict().keys() - placed.keys())
        unknown = sorted(placed.keys() - network.state_dict().keys())
        what = f"{len(missing)} tensors are missing ({missing[0]}, ...)" if missing else ""
        what = what or (f"{len(unknown)} tensors are unknown ({unknown[0]}, ...)" if unknown else "a shape differs")
        raise BundleError(f"{path} does not fit the network: {what}.", hint=_INSTALL_AGAIN) from error
    network.eval().requires_grad_(False)
    keep_group_norms_precise(network)


def _modern_name(name: str) -> str:
    """Return today's name of a VAE tensor."""
    return ".".join(_OLD_ATTENTION.get(part, part) if ".attentions." in name else part for part in name.split("."))


def _find_weights(folder: Path) -> Path:
    """A network's file: under the name diffusers gives it, else another safetensors file, else torch's own kind."""
    named = folder / _WEIGHTS
    others = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("diffusion_pytorch_model.bin"))
    return others[0] if others and not named.exists() else named


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".bin":
        return read_weights(path)
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing.", hint=_INSTALL_AGAIN) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path} is damaged or incomplete: {error}.", hint=_INSTALL_AGAIN) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing.", hint=_INSTALL_AGAIN) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is damaged or incomplete: {error}.", hint=_INSTALL_AGAIN) from error
    if not isinstance(entries, dict):
        raise BundleError(f"{path} is not a JSON object.", hint=_INSTALL_AGAIN)
    return entries


def _text(path: Path, entries: Mapping[str, Any], key: str) -> str:
    value = entries.get(key)
    if not isinstance(value, str) or not value:
        raise BundleError(f"{path}: '{key}' must be a text, but is {value!r}.", hint=_INSTALL_AGAIN)
    return value


def _size(path: Path, entries: Mapping[str, Any], key: str) -> Size:
    value = entries.get(key)
    match value:
        case [int(height), int(width)] if all(side > 0 and side % _SIZE_STEP_PX == 0 for side in (height, width)):
            return height, width
    raise BundleError(
        f"{path}: '{key}' must be [height, width] in multiples of {_SIZE_STEP_PX}, but is {value!r}.",
        hint=_INSTALL_AGAIN,
    )
