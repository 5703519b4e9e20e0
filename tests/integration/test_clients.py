"""Every client people upload with, for real: into a running daemon, well behaved, slow, stalled, killed and resumed."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image
from support.daemon_process import PATIENCE_S, DaemonProcess, wait_for
from support.loopback_ssh import LoopbackSsh, serve_ssh

from fastfit_watch.domain.job import Status

LONG_AGO_S = 1_000_000_000  # a mtime of 2001, as cp -a and scp -p bring it


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    (tmp_path / "box").mkdir()
    daemon = DaemonProcess(tmp_path / "box")
    yield daemon
    daemon.close()


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[LoopbackSsh]:
    with serve_ssh(tmp_path) as server:
        yield server


def prepare(folder: Path, size: int = 64) -> Path:
    """A job folder at the user's own machine: one person, one look. Noise keeps the file large."""
    folder.mkdir(parents=True)
    noise = random.Random(size).randbytes(size * size * 3)
    Image.frombytes("RGB", (size, size), noise).save(folder / "anna.png")
    Image.new("RGB", (48, 64), "red").save(folder / "shirt.png")
    (folder / "outfit.yaml").write_text(yaml.safe_dump({"person": "anna.png", "upper": "shirt.png", "seed": 7}))
    for file in folder.iterdir():
        os.utime(file, (LONG_AGO_S, LONG_AGO_S))
    return folder


def run(command: list[str], **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr


Client = Callable[[LoopbackSsh, Path, Path], None]


def _scp(*options: str) -> Client:
    return lambda ssh, source, inputs: run([*ssh.scp, *options, "-r", str(source), ssh.target(inputs)])


def _sftp(ssh: LoopbackSsh, source: Path, inputs: Path) -> None:
    run([*ssh.sftp, "-b", "-", ssh.host], input=f"put -r {source} {inputs / source.name}\n")


def _rsync(*options: str) -> Client:
    def upload(ssh: LoopbackSsh, source: Path, inputs: Path) -> None:
        run(["rsync", "-e", shlex.join(ssh.ssh), *options, str(source), ssh.target(inputs)])

    return upload


def _move(ssh: LoopbackSsh, source: Path, inputs: Path) -> None:
    source.rename(inputs / source.name)


def _copy(*options: str) -> Client:
    return lambda ssh, source, inputs: run(["cp", *options, str(source), str(inputs)])


def _unzip(ssh: LoopbackSsh, source: Path, inputs: Path) -> None:
    run(["zip", "-q", "-r", f"{source}.zip", source.name], cwd=source.parent)
    run(["unzip", "-q", f"{source}.zip", "-d", str(inputs)])


def _tar(ssh: LoopbackSsh, source: Path, inputs: Path) -> None:
    run(["sh", "-c", f"tar c -C {source.parent} {source.name} | {shlex.join([*ssh.ssh, ssh.host])} tar x -C {inputs}"])


def _editor(ssh: LoopbackSsh, source: Path, inputs: Path) -> None:
    """Pictures first, then a manifest written in place: a draft, a swap file, a backup, and a rename over it."""
    folder = inputs / source.name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.yaml"))
    (folder / ".outfit.yaml.swp").write_bytes(b"b0VIM 9.1")
    (folder / "outfit.yaml").write_text("person: ann\nupp")
    time.sleep(0.6)
    (folder / "outfit.yaml").rename(folder / "outfit.yaml~")
    (folder / "outfit.yaml").write_bytes((source / "outfit.yaml").read_bytes())
    (folder / "outfit.yaml~").unlink()
    (folder / ".outfit.yaml.swp").unlink()


CLIENTS: dict[str, Client] = {
    "scp": _scp(),
    "scp-preserve": _scp("-p"),
    "scp-legacy": _scp("-O"),
    "sftp": _sftp,
    "rsync": _rsync("-r"),
    "rsync-archive": _rsync("-a"),
    "rsync-inplace": _rsync("-r", "--inplace"),
    "rsync-partial": _rsync("-r", "--partial"),
    "rsync-delay": _rsync("-r", "--delay-updates"),
    "mv": _move,
    "cp": _copy("-r"),
    "cp-archive": _copy("-a"),
    "unzip": _unzip,
    "tar": _tar,
    "editor": _editor,
}


def test_every_client_gets_its_picture(daemon: DaemonProcess, ssh: LoopbackSsh, tmp_path: Path) -> None:
    daemon.start()
    for name, upload in CLIENTS.items():
        upload(ssh, prepare(tmp_path / "mine" / name), daemon.inputs)
    wait_for(lambda: all(daemon.is_final(name) for name in CLIENTS), daemon)
    for name in CLIENTS:
        job = daemon.job(name)
        assert job is not None and job.status is Status.DONE, (name, job)
        assert len(list((daemon.outputs / name).glob("*.png"))) == 1, name
    assert {path.parent.name for path in daemon.outputs.glob("*/report.json")} == set(CLIENTS), "no job twice"


def _slow_scp(ssh: LoopbackSsh, source: Path, daemon: DaemonProcess) -> subprocess.Popen[bytes]:
    """Begin an upload of about ten seconds, picture and manifest; returns once half the picture is there."""
    size = (source / "anna.png").stat().st_size
    # The manifest and the shirt come whole and first: only the picture tells that the upload is not complete.
    (daemon.inputs / source.name).mkdir(exist_ok=True)
    run([*ssh.scp, str(source / "outfit.yaml"), str(source / "shirt.png"), ssh.target(daemon.inputs / source.name)])
    limit = ["-l", str(max(1, size * 8 // 1000 // 10))]
    process = subprocess.Popen([*ssh.scp, *limit, str(source / "anna.png"), ssh.target(daemon.inputs / source.name)])
    arriving = daemon.inputs / source.name / "anna.png"
    wait_for(lambda: arriving.exists() and arriving.stat().st_size > size // 4, daemon)
    return process


def test_an_upload_stopped_midway_waits_stalls_and_is_taken_when_it_goes_on(
    daemon: DaemonProcess, ssh: LoopbackSsh, tmp_path: Path
) -> None:
    daemon.configure(watch={"settle_s": 0.2, "scan_s": 0.2, "quiet_scan_s": 0.5, "stalled_after_s": 3})
    daemon.start()
    upload = _slow_scp(ssh, prepare(tmp_path / "mine" / "slow", 1200), daemon)
    upload.send_signal(signal.SIGSTOP)
    wait_for(lambda: daemon.status("slow").startswith("stalled"), daemon)
    daemon.upload("other", "look")
    wait_for(lambda: daemon.is_final("other"), daemon)
    upload.send_signal(signal.SIGCONT)
    assert upload.wait(PATIENCE_S) == 0
    wait_for(lambda: daemon.is_final("slow"), daemon)
    assert daemon.status("slow").startswith("done")


def test_a_killed_upload_waits_and_the_same_command_again_completes_it(
    daemon: DaemonProcess, ssh: LoopbackSsh, tmp_path: Path
) -> None:
    daemon.start()
    source = prepare(tmp_path / "mine" / "again", 1200)
    upload = _slow_scp(ssh, source, daemon)
    upload.kill()
    upload.wait()
    wait_for(lambda: "anna.png" in daemon.status("again"), daemon)
    time.sleep(1.5)  # many times the settle time
    assert daemon.status("again").startswith("waiting"), daemon.status("again")
    # scp writes over what is there, in place and without cutting it first.
    run([*ssh.scp, "-r", str(source), ssh.target(daemon.inputs)])
    wait_for(lambda: daemon.is_final("again"), daemon)
    assert daemon.status("again").startswith("done")


def test_a_daemon_restarted_in_the_middle_of_an_upload_takes_no_half_picture(
    daemon: DaemonProcess, ssh: LoopbackSsh, tmp_path: Path
) -> None:
    first = daemon.start()
    upload = _slow_scp(ssh, prepare(tmp_path / "mine" / "across", 1200), daemon)
    upload.send_signal(signal.SIGSTOP)  # however long the next daemon takes to start
    first.kill()
    first.wait()
    daemon.start()
    wait_for(lambda: daemon.status("across").startswith("waiting"), daemon)
    time.sleep(1.0)
    assert daemon.status("across").startswith("waiting"), daemon.status("across")
    upload.send_signal(signal.SIGCONT)
    assert upload.wait(PATIENCE_S) == 0
    wait_for(lambda: daemon.is_final("across"), daemon)
    assert daemon.status("across").startswith("done")


def test_more_events_than_the_kernel_keeps_lose_no_upload(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon_child = daemon.start()
    daemon.upload("before", "look")
    wait_for(lambda: daemon.is_final("before"), daemon)
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    daemon_child.send_signal(signal.SIGSTOP)
    try:
        for number in range(queue // 2 + 2000):  # each is two events
            (daemon.inputs / f".flood{number}").mkdir()
            (daemon.inputs / f".flood{number}").rmdir()
        prepare(daemon.inputs / "after")
    finally:
        daemon_child.send_signal(signal.SIGCONT)
    wait_for(lambda: daemon.is_final("after"), daemon)
    assert daemon.status("after").startswith("done")


def test_inputs_taken_away_are_said_and_used_again_when_they_return(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.upload("first", "look")
    wait_for(lambda: daemon.is_final("first"), daemon)
    away = daemon.root / "away"
    daemon.inputs.rename(away)
    wait_for(lambda: "is gone" in (daemon.root / "stderr").read_text(), daemon)
    away.rename(daemon.inputs)
    daemon.upload("second", "look")
    wait_for(lambda: daemon.is_final("second"), daemon)
    assert daemon.status("second").startswith("done")


def test_a_disk_unmounted_and_mounted_again_loses_and_doubles_nothing(daemon: DaemonProcess, tmp_path: Path) -> None:
    bare, daemon.inputs = daemon.inputs, daemon.root / "disk"
    daemon.inputs.mkdir()
    mount = f"mount --bind {shlex.quote(str(daemon.inputs))} {shlex.quote(str(bare))}"
    unmount = f"umount -l {shlex.quote(str(bare))}"  # lazily: the daemon holds files open on it
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", f"{mount} && {unmount}"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no user namespaces here")
    daemon_child = daemon.start(through=["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" "$@"'])
    daemon.upload("first", "look")
    wait_for(lambda: daemon.is_final("first"), daemon)
    within = ["nsenter", "-t", str(daemon_child.pid), "-U", "-m", "--preserve-credentials", "sh", "-c"]
    run([*within, unmount])
    daemon.upload("away", "look")
    prepare(tmp_path / "mine" / "between").rename(bare / "between")
    wait_for(lambda: daemon.status("between").startswith("done"), daemon)
    assert daemon.status("away") == "", "it came to a disk that is not there"
    run([*within, mount])
    daemon.upload("last", "look")
    wait_for(lambda: daemon.is_final("away") and daemon.is_final("last"), daemon)
    assert {path.parent.name for path in daemon.outputs.glob("*/report.json")} == {"first", "between", "away", "last"}
    assert daemon.begun() == ["first/anna.look", "between/anna.look", "away/anna.look", "last/anna.look"]
    assert "is another folder now" in (daemon.root / "stderr").read_text()


def test_another_account_uploads_and_its_folder_is_left_alone(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The daemon may read but not move what another account uploads into a sticky folder: it takes a copy, once."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to play two accounts")
    administrator, uploader = 65_534, 54_321
    os.chown(daemon.inputs, administrator, administrator)
    daemon.inputs.chmod(0o1777)  # sticky: everyone may add, and take away only what is theirs
    daemon.start(through=["setpriv", "--bounding-set=-all", "--inh-caps=-all"])  # root's name without root's powers
    source = prepare(tmp_path / "mine" / "guest")
    for path in (source, *source.iterdir()):  # readable by all, as scp leaves files
        os.chown(path, uploader, uploader)
    source.rename(daemon.inputs / "guest")
    wait_for(lambda: daemon.status("guest").startswith("done"), daemon)
    time.sleep(1.5)
    assert {"anna.png", "outfit.yaml"} <= {path.name for path in (daemon.inputs / "guest").iterdir()}
    assert [path.parent.name for path in daemon.outputs.glob("*/report.json")] == ["guest"], "taken once"
