"""The spool: which daemon holds it, and what is refused as one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.storage.spool import Spool, SpoolPaths


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return tmp_path / "inputs"


@pytest.fixture
def spool(inputs: Path) -> Iterator[Spool]:
    made = Spool(SpoolPaths(inputs), Limits())
    made.lock()
    yield made
    made.unlock()


def test_a_second_daemon_is_refused_and_told_who_is_there(inputs: Path, spool: Spool) -> None:
    with pytest.raises(ConfigError, match=rf"process {os.getpid()}\) is already watching"):
        Spool(SpoolPaths(inputs), Limits()).lock()
    spool.unlock()
    other = Spool(SpoolPaths(inputs), Limits())
    other.lock()
    other.unlock()


def test_a_lock_dies_with_its_process(inputs: Path) -> None:
    program = (
        "import sys, os; from pathlib import Path; from fastfit_watch.domain.limits import Limits;"
        "from fastfit_watch.storage.spool import Spool, SpoolPaths;"
        "Spool(SpoolPaths(Path(sys.argv[1])), Limits()).lock(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(inputs)], check=False)
    spool = Spool(SpoolPaths(inputs), Limits())
    spool.lock()
    spool.unlock()


def test_a_planted_spool_is_refused(inputs: Path, tmp_path: Path) -> None:
    inputs.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (inputs / ".spool").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be used"):
        Spool(SpoolPaths(inputs), Limits()).lock()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_spool_that_was_replaced_is_noticed(inputs: Path, spool: Spool) -> None:
    assert spool.is_ours()
    shutil.rmtree(inputs)
    assert not spool.is_ours()
    Spool(SpoolPaths(inputs), Limits()).lock()
    assert not spool.is_ours()


def test_a_new_job_finds_nothing_in_its_place_and_a_former_upload_is_kept(spool: Spool) -> None:
    for folder in (spool.paths.snapshot("a"), spool.paths.receipts("a"), spool.paths.withheld("a")):
        folder.mkdir(parents=True)
        (folder / "file").write_text("former")
    assert spool.clear_place("a") is None
    assert list(spool.paths.job("a").iterdir()) == []
    spool.paths.upload("a").mkdir()
    (spool.paths.upload("a") / "anna.jpg").write_text("former")
    aside = spool.clear_place("a")
    assert aside is not None and (aside / "upload" / "anna.jpg").read_text() == "former"
    assert not spool.paths.job("a").exists()
    assert spool.clear_place("a") is None
