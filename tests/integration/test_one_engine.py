"""The engine is loaded once, whatever comes: several jobs, one after the other and with one in between that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from support.running_daemon import RunningDaemon, draw_upload


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path / "box")
    running.start()
    yield running
    running.kill()


def engines(daemon: RunningDaemon) -> list[int]:
    """Process ids of the engines of a daemon."""
    assert daemon.process is not None
    children = psutil.Process(daemon.process.pid).children()
    return [child.pid for child in children if "fastfit_watch.worker" in child.cmdline()]


def test_one_engine_serves_all_jobs(daemon: RunningDaemon, tmp_path: Path) -> None:
    draw_upload(tmp_path / "first").rename(daemon.inputs / "first")
    daemon.wait_done("first")
    before = engines(daemon)
    bad = draw_upload(tmp_path / "bad")
    (bad / "outfit.yaml").write_text("person: nobody\n")
    bad.rename(daemon.inputs / "bad")
    for name in ("second", "third"):
        draw_upload(tmp_path / name, people=2).rename(daemon.inputs / name)
    for name in ("second", "third"):
        daemon.wait_done(name)
        assert daemon.report(name)["status"] == "done"
    daemon.wait(lambda: daemon.status("bad").startswith("invalid"), "the bad one's verdict")
    assert len(before) == 1 and engines(daemon) == before
