"""The human toolkit from files in the released layout, and a picture the command makes with it, offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from support.released_files import CLASSES, UPPER_CLOTHES, write_model, write_toolkit

from fastfit_watch.bundles.catalogue import KNOWN
from fastfit_watch.bundles.integrity import BY_HAND, BundleState, check_sizes, locate_parts
from fastfit_watch.config.settings import Config, EngineSettings
from fastfit_watch.daemon.worker_process import worker_command
from fastfit_watch.domain.errors import BundleError, EngineError
from fastfit_watch.domain.worker_protocol import CannotLoad, WorkerExit, read_message
from fastfit_watch.engine.parsers.human_toolkit import DATASETS, HumanToolkit
from fastfit_watch.engine.parsers.schp import SCHP, parse_with
from fastfit_watch.engine.parsers.schp_network import AugmentCE2P
from fastfit_watch.system.failpoints import VARIABLE

NAME = "fastfit-mr-1024"
SMALL = (128, 96)
COPIES = {
    "SCHP/converted/exp-schp-lip.pth.safetensors",
    "SCHP/converted/exp-schp-atr.pth.safetensors",
    "DensePose/converted/model_final_162be9.pkl.safetensors",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder filled by hand: the repositories' own files, and sizes that a CPU can bear."""
    models = tmp_path_factory.mktemp("Models")
    write_model(models / NAME)
    write_toolkit(models / NAME / "parser")
    small = replace(KNOWN[NAME], person_size=SMALL, garment_size=(64, 48), accessory_size=(64, 48))
    (models / NAME / "bundle.json").write_text(json.dumps(small.describe(BY_HAND)))
    return models


@pytest.fixture(scope="module")
def toolkit(models: Path) -> HumanToolkit:
    return HumanToolkit.load(models / NAME / "parser", "cpu", torch.bfloat16)


def test_the_catalogue_finds_the_released_layout(models: Path) -> None:
    root, bundle = models / NAME, KNOWN[NAME]
    found = {path.relative_to(root).as_posix() for path in locate_parts(root, bundle).values() if path is not None}
    assert len(found) == len(bundle.parts)
    assert "parser/SCHP/exp-schp-atr.pth" in found and "parser/DWPose/yolox_l.onnx" in found
    assert check_sizes(root, bundle).state is BundleState.COMPLETE


def test_all_four_networks_see_what_they_were_made_to_see(toolkit: HumanToolkit) -> None:
    image = np.random.default_rng(1).integers(0, 256, (120, 90, 3), np.uint8)
    parsing = toolkit.parse(image)
    assert parsing.pose.shape == image.shape
    assert parsing.pose.any(), "the skeleton was drawn"
    assert not parsing.densepose.any()
    assert (parsing.lip == UPPER_CLOTHES["lip"]).all() and parsing.lip.shape == (120, 90)
    assert (parsing.atr == UPPER_CLOTHES["atr"]).all()
    assert {weight.dtype for network in toolkit.networks for weight in network.parameters()} == {torch.float32}


def test_a_later_start_reads_the_converted_copies_alone(models: Path, toolkit: HumanToolkit) -> None:
    folder = models / NAME / "parser"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")} == COPIES
    originals = [path for pattern in ("*.pth", "*.pkl") for path in folder.rglob(pattern)]
    kept = {path: (path.read_bytes(), path.stat()) for path in originals}
    assert len(kept) == 3
    for path, (data, facts) in kept.items():
        path.write_bytes(bytes(len(data)))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    try:
        again = HumanToolkit.load(folder, "cpu", torch.float32)
    finally:
        for path, (data, facts) in kept.items():
            path.write_bytes(data)
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    for first, second in zip(toolkit.networks, again.networks, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "DWPose/yolox_l.onnx",
        "DWPose/dw-ll_ucoco_384.onnx",
        "DensePose/model_final_162be9.pkl",
        "SCHP/exp-schp-lip.pth",
        "SCHP/exp-schp-atr.pth",
    ],
)
def test_a_missing_file_is_named_by_the_engine_and_before(models: Path, name: str, toolkit: HumanToolkit) -> None:
    folder = models / NAME / "parser"
    (folder / name).rename(folder / "away")
    try:
        with pytest.raises(BundleError, match=r"models pull") as caught:
            HumanToolkit.load(folder, "cpu", torch.float32)
        condition = check_sizes(models / NAME, KNOWN[NAME])
    finally:
        (folder / "away").rename(folder / name)
    assert f"The human toolkit in {folder} lacks '" in caught.value.message
    assert condition.state is BundleState.INCOMPLETE
    assert len(condition.faults) == 1 and f"{folder} lacks " in condition.faults[0]


def test_parsers_are_told_by_their_folders_where_names_say_nothing(models: Path, toolkit: HumanToolkit) -> None:
    folder = models / NAME / "parser"
    for dataset in ("lip", "atr"):
        (folder / f"SCHP-{dataset}").mkdir()
        (folder / "SCHP" / f"exp-schp-{dataset}.pth").rename(folder / f"SCHP-{dataset}" / "weights.pth")
    try:
        found = {path.parent.name for path in locate_parts(models / NAME, KNOWN[NAME]).values() if path is not None}
        assert {"SCHP-lip", "SCHP-atr"} <= found
        lip = HumanToolkit.load(folder, "cpu", torch.float32).networks[1]
        assert lip.state_dict()["fushion.4.bias"].argmax() == UPPER_CLOTHES["lip"]
    finally:
        for dataset in ("lip", "atr"):
            (folder / f"SCHP-{dataset}" / "weights.pth").rename(folder / "SCHP" / f"exp-schp-{dataset}.pth")


class OneLayer(torch.nn.Module):
    """The quickest network that looks like SCHP's from outside: logits at a quarter of its input's size."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, classes, 4, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.conv1(pixels))


def test_both_parsers_answer_as_each_alone() -> None:
    image = np.random.default_rng(2).integers(0, 256, (60, 90, 3), np.uint8)
    torch.manual_seed(3)
    lip, atr = (SCHP(cast("AugmentCE2P", OneLayer(CLASSES[dataset])), dataset) for dataset in DATASETS)
    both = parse_with((lip, atr), image)
    for labels, parser in zip(both, (lip, atr), strict=True):
        assert len(np.unique(labels)) > 5
        assert np.array_equal(labels, parser.parse(image))
    assert not np.array_equal(both[0], both[1])


@pytest.mark.skipif(find_spec("detectron2") is not None, reason="detectron2 is installed here")
def test_detectron2_where_it_is_missing_is_refused_in_words(models: Path, toolkit: HumanToolkit) -> None:
    config = Config(bundle=NAME, models=models, engine=EngineSettings(densepose="detectron2"))
    command = worker_command(config, "cpu")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        last = [read_message(line) for line in worker.stdout][-1]
        worker.wait(timeout=60)  # before its orders end: that would be a reason to end, too
    assert isinstance(last, CannotLoad) and worker.returncode == WorkerExit.CANNOT_LOAD
    assert "detectron2 with its DensePose project is not installed" in last.message
    assert "set 'engine.densepose: builtin'" in last.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_dwpose_on_a_gpu_that_is_not_there_is_refused_in_words(models: Path) -> None:
    with pytest.raises(EngineError, match=r"onnxruntime cannot use CUDA for yolox_l\.onnx: it offers CPU"):
        HumanToolkit.load(models / NAME / "parser", "cpu", torch.float32, "cuda:0")


WITHOUT_NETWORK = """
import socket, sys

def refuse(*arguments, **keywords):
    raise SystemExit("the network was asked")

socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
from fastfit_watch.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_try_on_makes_a_picture_from_the_released_layout(models: Path, tmp_path: Path) -> None:
    """Offline, and short of memory while it loads and again while it decodes."""
    Image.effect_noise((300, 400), 90).convert("RGB").save(tmp_path / "anna.png")
    Image.new("RGB", (300, 400), "navy").save(tmp_path / "shirt.png")
    options = ["--person", "anna.png", "--upper", "shirt.png", "--steps", "2", "--seed", "1", "--device", "cpu"]
    command = [sys.executable, "-c", WITHOUT_NETWORK, "try-on", *options, "--bundle", NAME, "--models", str(models)]
    short = {**os.environ, VARIABLE: "memory.full.load:1:ENOMEM memory.halves.decode:1:ENOMEM"}
    done = subprocess.run(command, cwd=tmp_path, env=short, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rung full of the memory ladder: The device cpu ran out of memory in the stage 'load'." in done.stderr
    assert "on rung 'halves': The device cpu ran out of memory in the stage 'decode'." in done.stderr
    assert "made on rung 'offload' of the memory ladder" in done.stdout and "peak VRAM: none" in done.stdout
    with Image.open(tmp_path / "output.png") as picture:
        assert picture.size == (SMALL[1], SMALL[0])
        assert len(picture.convert("RGB").getcolors(10**6) or []) > 100, "it was painted"
