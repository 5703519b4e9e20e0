"""A bundle on disk: what is read, how it is placed, and that every damage gives one sentence that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.tiny_networks import write_bundle

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.engine.bundle import Bundle, ParserKind, load_parser, load_scheduler, load_unet, load_vae
from fastfit_watch.engine.tryon import TryOnEngine

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def read_copy(path: Path) -> dict[str, torch.Tensor]:
    """Weights that outlive their file: `load_file` maps it, and these tests write over it."""
    return {name: value.clone() for name, value in load_file(path).items()}


def load_all(root: Path) -> None:
    """Read everything that is not the parser."""
    bundle = Bundle.open(root)
    load_unet(bundle, "cpu", torch.float32)
    load_vae(bundle, "cpu", torch.float32)
    load_scheduler(bundle)


def test_what_bundle_json_says(whole: Path) -> None:
    bundle = Bundle.open(whole)
    assert (bundle.name, bundle.revision, bundle.licence) == ("tiny", "1", "none")
    assert bundle.person_size == (96, 72)
    assert bundle.parser is ParserKind.MINI
    assert bundle.garment_sizes == dict.fromkeys(Category, (64, 48)) | dict.fromkeys(
        (Category.SHOE, Category.BAG), (32, 24)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_arrive_in_the_wanted_type(whole: Path, dtype: torch.dtype) -> None:
    bundle = Bundle.open(whole)
    for part, network in (("unet", load_unet(bundle, "cpu", dtype)), ("vae", load_vae(bundle, "cpu", dtype))):
        stored = load_file(whole / part / WEIGHTS)
        placed = network.state_dict()
        assert placed.keys() == stored.keys()
        assert all(torch.equal(placed[name], stored[name].to(dtype)) for name in stored)
        assert not any(weight.requires_grad for weight in network.parameters())
        assert not network.training


def test_old_names_of_the_vae_are_understood(root: Path) -> None:
    path = root / "vae" / WEIGHTS
    modern = read_copy(path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in modern.items():
        for new, former in old.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{former}.")
        renamed[name] = value
    assert sum(".query." in name for name in renamed) == 4
    save_file(renamed, path)
    assert load_vae(Bundle.open(root), "cpu", torch.float32).state_dict().keys() == modern.keys()


def test_schedule_comes_from_the_file(root: Path) -> None:
    path = root / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"beta_end": 0.02}), encoding="utf-8")
    assert float(load_scheduler(Bundle.open(root)).betas[-1]) == pytest.approx(0.02)


def test_a_schedule_written_for_another_sampler(root: Path) -> None:
    path = root / "scheduler" / "scheduler_config.json"
    other = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False}
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | other), encoding="utf-8")
    assert float(load_scheduler(Bundle.open(root)).betas[-1]) == pytest.approx(0.012)


FILES = (
    "bundle.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    f"unet/{WEIGHTS}",
    "vae/config.json",
    f"vae/{WEIGHTS}",
)


@pytest.mark.parametrize("name", FILES)
def test_missing_file(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(BundleError) as caught:
        load_all(root)
    assert caught.value.message == f"{root / name} is missing."
    assert "again" in caught.value.hint


@pytest.mark.parametrize("kept", [0.0, 0.5])
@pytest.mark.parametrize("name", FILES)
def test_truncated_file(root: Path, name: str, kept: float) -> None:
    path = root / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(BundleError) as caught:
        load_all(root)
    assert caught.value.message.startswith(f"{path} is damaged or incomplete: ")
    assert "again" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parser": "other"}, "names an unknown parser 'other'"),
        ({"name": None}, "'name' must be a text, but is None"),
        ({"revision": 3}, "'revision' must be a text, but is 3"),
        ({"licence": ""}, "'licence' must be a text, but is ''"),
        ({"person_size": [1024]}, "'person_size' must be [height, width]"),
        ({"garment_size": [1024, 770]}, "in multiples of 8, but is [1024, 770]"),
        ({"accessory_size": [0, 8]}, "but is [0, 8]"),
    ],
)
def test_bundle_json_with_a_fault(root: Path, change: dict[str, Any], message: str) -> None:
    path = root / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        Bundle.open(root)
    assert str(path) in caught.value.message
    assert message in caught.value.message


def test_bundle_json_that_is_no_object(root: Path) -> None:
    (root / "bundle.json").write_text("[]", encoding="utf-8")
    with pytest.raises(BundleError, match="is not a JSON object"):
        Bundle.open(root)


def test_network_config_that_describes_nothing(root: Path) -> None:
    path = root / "unet" / "config.json"
    path.write_text(json.dumps({"down_block_types": ["NoSuchBlock"], "up_block_types": ["NoSuchBlock"]}), "utf-8")
    with pytest.raises(BundleError, match="does not describe a network"):
        load_all(root)


def test_schedule_that_is_none(root: Path) -> None:
    (root / "scheduler" / "scheduler_config.json").write_text('{"beta_schedule": "round"}', encoding="utf-8")
    with pytest.raises(BundleError, match="does not describe a schedule"):
        load_all(root)


Tensors = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("conv_in.bias"), r"1 tensors are missing \(conv_in.bias, ...\)"),
        (lambda weights: weights.update(extra=torch.zeros(1)), r"1 tensors are unknown \(extra, ...\)"),
        (lambda weights: weights.update({"conv_in.bias": torch.zeros(3)}), "a shape differs"),
    ],
)
def test_weights_of_another_network(root: Path, change: Callable[[Tensors], object], message: str) -> None:
    path = root / "unet" / WEIGHTS
    weights = read_copy(path)
    change(weights)
    save_file(weights, path)
    with pytest.raises(BundleError, match=message):
        load_all(root)


def test_pickled_weights_are_never_read(root: Path) -> None:
    path = root / "vae" / WEIGHTS
    torch.save(read_copy(path), path)
    with pytest.raises(BundleError, match="is damaged or incomplete"):
        load_all(root)


@pytest.mark.parametrize("kind", list(ParserKind))
def test_parser_without_its_files(root: Path, kind: ParserKind) -> None:
    shutil.rmtree(root / "parser")
    path = root / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"parser": kind}), encoding="utf-8")
    with pytest.raises(BundleError, match="parser"):
        load_parser(Bundle.open(root), "cpu", torch.float32)


def test_mini_parser_is_loaded_from_the_bundle(whole: Path) -> None:
    parsing = load_parser(Bundle.open(whole), "cpu", torch.float32).parse(np.zeros((96, 72, 3), np.uint8))
    assert parsing.lip.shape == (96, 72)


def test_engine_loads_a_bundle_and_dresses(whole: Path) -> None:
    engine = TryOnEngine.load(Bundle.open(whole), "cpu")
    assert (engine.unet.dtype, engine.vae.dtype) == (torch.float32, torch.float32)
    person, shirt = Image.new("RGB", (90, 120), "teal"), Image.new("RGB", (60, 80), "navy")
    result = engine.try_on(person, {Category.UPPER: shirt}, SamplingOptions(steps=1, seed=0))
    assert result.image.size == (72, 96)


def test_unsupported_schedule_shows_at_load(root: Path) -> None:
    path = root / "scheduler" / "scheduler_config.json"
    path.write_text('{"prediction_type": "v_prediction"}', encoding="utf-8")
    with pytest.raises(BundleError, match="prediction_type 'v_prediction'"):
        load_all(root)
