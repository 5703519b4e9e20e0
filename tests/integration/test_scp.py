"""Uploads as people make them: a real scp through a real sshd on loopback, into a running daemon."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_daemon import RunningDaemon, draw_upload


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path / "box")
    running.start()
    yield running
    running.kill()


@pytest.fixture
def scp(tmp_path: Path) -> Iterator[list[str]]:
    """The scp command line, up to its operands, for a server that lives as long as the test."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert server, "these tests need an OpenSSH server: install the package openssh-server"
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = f"""
        ListenAddress 127.0.0.1:{port}
        HostKey {tmp_path / "host"}
        AuthorizedKeysFile {tmp_path / "authorized"}
        PidFile none
        StrictModes no
        UsePAM no
        PermitRootLogin yes
        PasswordAuthentication no
        Subsystem sftp internal-sftp
    """
    (tmp_path / "sshd.conf").write_text(settings, encoding="ascii")
    sshd = subprocess.Popen([server, "-D", "-f", str(tmp_path / "sshd.conf"), "-E", str(tmp_path / "sshd.log")])
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    options = [
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={tmp_path / 'known'}",
        "LogLevel=ERROR",
        "BatchMode=yes",
    ]
    command = ["scp", "-q", "-P", str(port), "-i", str(tmp_path / "user")]
    yield [*command, *(part for option in options for part in ("-o", option))]
    sshd.terminate()
    sshd.wait()


def _target(path: Path) -> str:
    return f"{getpass.getuser()}@127.0.0.1:{path}"


@pytest.mark.parametrize("protocol", [[], ["-O"]], ids=["sftp", "legacy"])
def test_a_folder_copied_with_scp_becomes_pictures(
    daemon: RunningDaemon, scp: list[str], tmp_path: Path, protocol: list[str]
) -> None:
    upload = draw_upload(tmp_path / "spring", people=2)
    subprocess.run([*scp, *protocol, "-r", str(upload), _target(daemon.inputs)], check=True)
    daemon.wait_done("spring")
    assert daemon.report("spring")["status"] == "done"
    back = tmp_path / "back"
    subprocess.run([*scp, *protocol, "-r", _target(daemon.outputs / "spring"), str(back)], check=True)
    assert {"p0.look0.png", "p1.look0.png", "sheet.jpg", "report.json"} <= {path.name for path in back.iterdir()}


@pytest.mark.parametrize("manifest_first", [True, False], ids=["manifest first", "manifest last"])
def test_files_in_any_order_and_slowly(
    daemon: RunningDaemon, scp: list[str], tmp_path: Path, manifest_first: bool
) -> None:
    upload = draw_upload(tmp_path / "slow")
    (daemon.inputs / "slow").mkdir()
    files = sorted(upload.iterdir(), key=lambda path: (path.suffix != ".yaml") is manifest_first)
    seen = set()
    for file in files:
        # -l limits the speed: a picture stays half uploaded for longer than the daemon waits for stillness.
        size_kbit = file.stat().st_size * 8 // 1000
        limit = ["-l", str(max(1, size_kbit // 2))] if file.suffix == ".jpg" else []
        subprocess.run([*scp, *limit, str(file), _target(daemon.inputs / "slow")], check=True)
        time.sleep(1.6)
        seen.add(daemon.status("slow").split(":")[0])
    daemon.wait_done("slow")
    assert daemon.report("slow")["status"] == "done"
    assert "invalid" not in seen
    assert sorted(path.name for path in daemon.outputs.iterdir() if path.is_dir()) == ["slow"], "one job only"
