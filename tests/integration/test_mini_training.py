"""The trainer of the mini bundle for a few steps of every stage: what it changes, and that a second run goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastfit_watch.engine.bundle import SHIPPED_MINI, Bundle
from fastfit_watch.engine.tryon import TryOnEngine

VAE = "vae/diffusion_pytorch_model.safetensors"
DECODER = ("decoder.", "post_quant_conv.")


def command(folder: Path, stages: str, *more: str) -> list[str]:
    """The trainer's line, as people type it."""
    options = ["--device", "cpu", "--processes", "1", "--batch", "2", "--plan-seconds", "600", *more]
    return [sys.executable, "-m", "fastfit_watch.mini.train", "--out", str(folder), "--stages", stages, *options]


def wait_until(holds: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
    """Wait for a state that the trainer brings about while it runs."""
    deadline_s = time.monotonic() + 120
    while not holds():
        assert running.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.05)


def children(pid: int) -> set[int]:
    """Processes that a process has started and that still run."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def train(folder: Path, stages: str, seconds: float) -> dict[str, dict[str, float]]:
    """Run the trainer; returns the clocks of its stages."""
    line = command(folder, stages, "--seconds", str(seconds))
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    clocks: dict[str, dict[str, float]] = json.loads((folder / "training.json").read_text())
    return clocks


def test_every_stage_from_nothing_makes_a_bundle(tmp_path: Path) -> None:
    clocks = train(tmp_path, "parser,vae,unet,decoder", 1.0)
    assert set(clocks) == {"parser", "vae", "unet", "decoder"}
    assert all(clock["steps"] > 0 and clock["seconds"] >= 1.0 for clock in clocks.values())
    TryOnEngine.load(Bundle.open(tmp_path), "cpu")


def test_the_last_stage_changes_the_decoder_alone_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_MINI, tmp_path, dirs_exist_ok=True)
    (tmp_path / "training.json").unlink()
    before, config = load_file(tmp_path / VAE), json.loads((tmp_path / "vae" / "config.json").read_text())
    first = train(tmp_path, "decoder", 1.0)["decoder"]
    second = train(tmp_path, "decoder", 1.0)["decoder"]
    assert second["seconds"] >= first["seconds"] + 1.0 and second["steps"] > first["steps"]
    after = load_file(tmp_path / VAE)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(DECODER) for name in changed)
    assert json.loads((tmp_path / "vae" / "config.json").read_text())["scaling_factor"] == pytest.approx(
        config["scaling_factor"]
    )


def test_a_killed_run_loses_what_came_after_its_last_checkpoint_alone(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_MINI, tmp_path, dirs_exist_ok=True)
    log, before = tmp_path / "training.json", load_file(tmp_path / VAE)
    log.unlink()
    with subprocess.Popen(command(tmp_path, "decoder", "--save-every", "0.5"), start_new_session=True) as running:
        try:
            wait_until(lambda: log.exists() and json.loads(log.read_text())["decoder"]["steps"] >= 2, running)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    kept = json.loads(log.read_text())["decoder"]
    assert any(not torch.equal(value, before[name]) for name, value in load_file(tmp_path / VAE).items())
    assert train(tmp_path, "decoder", 1.0)["decoder"]["steps"] > kept["steps"]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_process_that_draws_ends_with_the_trainer(tmp_path: Path, end: signal.Signals) -> None:
    line = command(tmp_path, "decoder", "--save-every", "0.1", "--processes", "2")
    with subprocess.Popen(line) as running:
        try:
            wait_until((tmp_path / "training.json").exists, running)
            started = children(running.pid)
        finally:
            running.send_signal(end)
    assert len(started) >= 2  # those that draw, and multiprocessing's own
    deadline_s = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
