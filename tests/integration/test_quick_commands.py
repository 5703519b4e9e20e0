"""The commands that people type while they wait for something else answer at once."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from fastfit_watch.config.paths import Paths
from fastfit_watch.storage.ledger import Ledger

LIMIT_S = 0.3


def measure(*command: str) -> float:
    """Seconds of processor time that a command and what it starts take: the time it takes on an idle machine."""
    spent_s = []
    for _ in range(3):
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "fastfit_watch", *command], check=True, stdout=subprocess.DEVNULL)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent_s.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
    return min(spent_s)


@pytest.mark.alone
def test_check_answers_at_once(tmp_path: Path) -> None:
    looks = {f"look{number}": {"upper": f"shirt{number}.jpg"} for number in range(4)}
    (tmp_path / "outfit.yaml").write_text(yaml.safe_dump({"people": ["anna.jpg"], "looks": looks}))
    for name in ("anna.jpg", *(f"shirt{number}.jpg" for number in range(4))):
        Image.linear_gradient("L").resize((768, 1024)).convert("RGB").save(tmp_path / name)
    assert measure("check", str(tmp_path)) < LIMIT_S


@pytest.mark.alone
def test_status_answers_at_once(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "inputs", tmp_path / "outputs", tmp_path / "logs")
    paths.spool.mkdir(parents=True)
    ledger = Ledger(paths.ledger)
    for number in range(50):
        ledger.find_or_create_unclaimed(f"job{number}", 1.0)
    ledger.close()
    assert measure("status", "--inputs", str(paths.inputs)) < LIMIT_S
