"""Power cuts: daemon and engine are killed with -9 at random moments; nothing is lost, doubled or different."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest
from support.running_daemon import RunningDaemon, draw_upload


def _pictures(daemon: RunningDaemon) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (daemon.outputs / "job").glob("*.png")}


def _upload(daemon: RunningDaemon, source: Path) -> None:
    hidden = daemon.inputs / ".job"
    shutil.copytree(source, hidden)
    hidden.rename(daemon.inputs / "job")


@pytest.mark.slow
def test_thirty_kills_leave_every_picture_once_and_byte_equal(tmp_path: Path) -> None:
    source = draw_upload(tmp_path / "source", people=3, looks=4, steps=3)
    calm = RunningDaemon(tmp_path / "calm")
    _upload(calm, source)
    calm.start()
    calm.wait_done("job")
    assert calm.stop() == 0
    expected = _pictures(calm)
    assert len(expected) == 12

    chance = random.Random(1)
    daemon = RunningDaemon(tmp_path / "stormy")
    settings = json.loads((daemon.home / "config.yaml").read_text(encoding="utf-8"))
    settings["engine"] = {"max_deaths": 1000, "max_attempts": 1000}  # deaths are the test's doing, not the looks'
    (daemon.home / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")
    _upload(daemon, source)
    daemon.start()
    first_seen: dict[str, int] = {}
    for number in range(30):
        time.sleep(chance.choice((chance.uniform(0, 2), chance.uniform(2, 7))))
        if number % 2 and daemon.kill_engine():
            pass
        else:
            daemon.kill()
            daemon.start()
        for path in (daemon.outputs / "job").glob("*.png"):
            inode = first_seen.setdefault(path.name, path.stat().st_ino)
            assert path.stat().st_ino == inode, f"{path.name} was made again"
    try:
        daemon.wait_done("job")
    finally:
        daemon.kill()

    assert _pictures(daemon) == expected
    report = daemon.report("job")
    assert report["status"] == "done" and len(report["looks"]) == 12
    assert [path.name for path in (daemon.outputs / "job").iterdir() if path.name.startswith(".tmp-")] == []
