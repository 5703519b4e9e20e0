"""Our own attention kernel: what can be known of it without its GPU, and all of it where there is one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastfit_watch.engine.fused import hopper

ROOT = Path(__file__).parents[4]
IS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


@pytest.mark.parametrize("head_size", hopper.HEAD_SIZES)
def test_the_kernel_compiles_to_what_it_is_meant_to_be(head_size: int) -> None:
    """The compiler says so where it serialises the matrix units, or keeps numbers in memory for want of registers."""
    code, said = hopper.compile_for(head_size)
    assert code[:4] == b"\x7fELF" and b"sm_90a" in code
    assert re.findall(r"\(C\d+\)|warning.*", said) == [] and said.count("0 bytes spill stores") == 2, said


def test_other_heads_have_no_kernel() -> None:
    with pytest.raises(hopper.UnsuitableError, match="80"):
        hopper.compile_for(80)


def test_without_the_compiler_another_kernel_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(hopper.UnsuitableError, match="cuda-bindings"):
        hopper.compile_for(40)


def test_the_source_and_its_caller_agree_on_sizes() -> None:
    text = hopper.source()
    assert f"GROUPS = {hopper._GROUPS}," in text and f"STAGES = {hopper._STAGES};" in text
    assert f"KEYS = HEAD == 40 ? {hopper._KEYS[40]} : {hopper._KEYS[48]};" in text


def test_on_the_cpu_the_kernel_refuses() -> None:
    given = torch.zeros((1, 1, 8, 40), dtype=torch.bfloat16)
    with pytest.raises(hopper.UnsuitableError, match="cpu"):
        hopper.attend(given, given, given)


@pytest.mark.gpu
@pytest.mark.skipif(not IS_HOPPER, reason="needs a Hopper GPU")
def test_all_bounds_are_met_on_the_gpu() -> None:
    command = [sys.executable, str(ROOT / "tests/gpu/prove_attention.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and "ALL BOUNDS MET" in done.stdout, done.stdout + done.stderr
