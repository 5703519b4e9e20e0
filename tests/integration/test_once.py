"""`run --once` beside uploads that go on: what is complete by then is taken by the next run, however it was left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image
from support.daemon_process import DaemonProcess, wait_for

from fastfit_watch.domain.job import Status
from fastfit_watch.system.exit_codes import ExitCode

SETTLE_S = 1.0


class SlowWriter:
    """Writes a file as a slow connection does, 2 KB each half second, until it is told to write the rest at once."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._data = path, data
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    @property
    def is_writing(self) -> bool:
        return self._thread.is_alive()

    def write_rest(self) -> None:
        self._hurry.set()
        self._thread.join()

    def _write(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            for start in range(0, len(self._data), 2048):
                file.write(self._data[start : start + 2048])
                self._hurry.wait(0.5)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    daemon.configure(watch={"settle_s": SETTLE_S, "scan_s": 0.2, "quiet_scan_s": 0.5})
    yield daemon
    daemon.close()


def noisy_picture(path: Path, size_bytes: int) -> bytes:
    """Save a picture of about this size and return its bytes."""
    side = int((size_bytes / 3) ** 0.5)
    Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(path)
    return path.read_bytes()


def is_older(moment_s: float, age_s: float) -> bool:
    """Is this Unix time further back than `age_s` seconds?"""
    return time.time() - moment_s > age_s


def put_all_but_the_person(daemon: DaemonProcess) -> Path:
    folder = daemon.inputs / "spring"
    folder.mkdir()
    Image.new("RGB", (48, 64), "red").save(folder / "shirt.png")
    manifest = {"people": ["anna.png"], "seed": 7, "looks": {"gala": {"upper": "shirt.png"}}}
    (folder / "outfit.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def test_an_upload_that_grows_during_a_run_is_taken_by_the_next_one(daemon: DaemonProcess, tmp_path: Path) -> None:
    data = noisy_picture(tmp_path / "anna.png", 2_000_000)  # it would take eight minutes
    target = put_all_but_the_person(daemon) / "anna.png"
    writer = SlowWriter(target, data)
    try:
        wait_for(target.exists, daemon)
        assert daemon.drain() == ExitCode.INCOMPLETE
        assert writer.is_writing
        job = daemon.job("spring")
        assert job is not None and job.status is Status.WAITING
    finally:
        writer.write_rest()
    assert daemon.drain() == ExitCode.OK
    assert daemon.status("spring").startswith("done") and daemon.pictures("spring")


def test_an_upload_left_at_a_sigterm_before_it_was_still_is_taken_by_the_next_run(daemon: DaemonProcess) -> None:
    daemon.configure(watch={"settle_s": 60.0, "scan_s": 0.2, "quiet_scan_s": 0.5})
    Image.new("RGB", (48, 64), "navy").save(put_all_but_the_person(daemon) / "anna.png")
    process = daemon.start("--once")
    wait_for(lambda: "still being written" in daemon.status("spring"), daemon)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == ExitCode.OK
    daemon.configure(watch={"settle_s": SETTLE_S, "scan_s": 0.2, "quiet_scan_s": 0.5})
    # Whatever time passes between two runs, the second one has seen nothing of it.
    wait_for(lambda: (job := daemon.job("spring")) is not None and is_older(job.changed_s, 2 * SETTLE_S), daemon)
    assert daemon.drain() == ExitCode.OK
    assert daemon.status("spring").startswith("done")


def test_an_upload_that_stalled_and_was_completed_between_two_runs_is_taken(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    daemon.configure(watch={"settle_s": SETTLE_S, "scan_s": 0.2, "quiet_scan_s": 0.5, "stalled_after_s": 1.5})
    data = noisy_picture(tmp_path / "anna.png", 30_000)
    target = put_all_but_the_person(daemon) / "anna.png"
    target.write_bytes(data[:-2000])
    process = daemon.start()
    wait_for(lambda: daemon.status("spring").startswith("stalled: 'anna.png' ends early"), daemon)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == ExitCode.OK
    target.write_bytes(data)
    assert daemon.drain() == ExitCode.OK
    assert daemon.status("spring").startswith("done")
