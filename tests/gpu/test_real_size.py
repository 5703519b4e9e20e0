"""The proofs at real size as a test: whole on a GPU, and a part of them in miniature anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).with_name("prove_real_size.py")
ROOT = Path(__file__).parents[2]


def _prove(*options: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(PROGRAM), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_all_bounds_are_met_at_real_size() -> None:
    assert "ALL BOUNDS MET" in _prove()


def test_the_program_itself_in_miniature() -> None:
    said = _prove("--small", "--parts", "float32,card12")
    assert "bfloat16 against float32" in said and "made on rung: full" in said
