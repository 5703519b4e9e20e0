"""Uploads as people make them: a real scp through a real sshd on loopback, into a running daemon."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.loopback_ssh import LoopbackSsh, serve_ssh
from support.running_daemon import RunningDaemon, draw_upload


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path / "box")
    running.start()
    yield running
    running.kill()


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[LoopbackSsh]:
    with serve_ssh(tmp_path) as server:
        yield server


@pytest.mark.parametrize("protocol", [[], ["-O"]], ids=["sftp", "legacy"])
def test_a_folder_copied_with_scp_becomes_pictures(
    daemon: RunningDaemon, ssh: LoopbackSsh, tmp_path: Path, protocol: list[str]
) -> None:
    upload = draw_upload(tmp_path / "spring", people=2)
    subprocess.run([*ssh.scp, *protocol, "-r", str(upload), ssh.target(daemon.inputs)], check=True)
    daemon.wait_done("spring")
    assert daemon.report("spring")["status"] == "done"
    back = tmp_path / "back"
    subprocess.run([*ssh.scp, *protocol, "-r", ssh.target(daemon.outputs / "spring"), str(back)], check=True)
    assert {"p0.look0.png", "p1.look0.png", "sheet.jpg", "report.json"} <= {path.name for path in back.iterdir()}


@pytest.mark.parametrize("manifest_first", [True, False], ids=["manifest first", "manifest last"])
def test_files_in_any_order_and_slowly(
    daemon: RunningDaemon, ssh: LoopbackSsh, tmp_path: Path, manifest_first: bool
) -> None:
    upload = draw_upload(tmp_path / "slow")
    (daemon.inputs / "slow").mkdir()
    files = sorted(upload.iterdir(), key=lambda path: (path.suffix != ".yaml") is manifest_first)
    seen = set()
    for file in files:
        # -l limits the speed: a picture stays half uploaded for longer than the daemon waits for stillness.
        size_kbit = file.stat().st_size * 8 // 1000
        limit = ["-l", str(max(1, size_kbit // 2))] if file.suffix == ".jpg" else []
        subprocess.run([*ssh.scp, *limit, str(file), ssh.target(daemon.inputs / "slow")], check=True)
        time.sleep(1.6)
        seen.add(daemon.status("slow").split(":")[0])
    daemon.wait_done("slow")
    assert daemon.report("slow")["status"] == "done"
    assert "invalid" not in seen
    assert [path.parent.name for path in daemon.outputs.glob("*/report.json")] == ["slow"], "one job only"
