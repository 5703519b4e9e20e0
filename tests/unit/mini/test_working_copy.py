"""The copy that training steps run on, where there is no GPU, and the mean of several runs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from fastfit_watch.mini.average import average
from fastfit_watch.mini.networks import WEIGHTS, build, save_stage
from fastfit_watch.mini.working_copy import working_copy


def test_a_cpu_works_in_float32_on_a_copy_of_its_own() -> None:
    network = build("parser")
    copied = working_copy(network, "cpu")
    pairs = list(zip(network.parameters(), copied.parameters(), strict=True))
    assert all(torch.equal(own, other) and own is not other and other.dtype is torch.float32 for own, other in pairs)


def test_the_mean_of_two_runs_lies_between_them(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        save_stage(folder, "parser", build("parser").state_dict())
    average("parser", folders, tmp_path / "mean")
    one, other, mean = (load_file(folder / WEIGHTS["parser"]) for folder in (*folders, tmp_path / "mean"))
    for name, value in mean.items():
        torch.testing.assert_close(value.float(), (one[name].float() + other[name].float()) / 2, rtol=0, atol=1e-3)
