"""Settings that cannot be read: every command says so and ends with exit code 2, and a running daemon keeps its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon_process import DaemonProcess, wait_for

from fastfit_watch.domain.job import Status
from fastfit_watch.system.exit_codes import ExitCode

BROKEN = {
    "date": "watch: {settle_s: 2024-13-45}\n",
    "digits": f"limits: {{files: {'9' * 4301}}}\n",
    "nesting": "[" * 3000,
    "twice": "bundle: mini\nbundle: mini\n",
}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.close()


@pytest.mark.parametrize("command", ["run --once", "status", "check .", "retry spring"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_command_ends_with_a_sentence(tmp_path: Path, command: str, name: str) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(BROKEN[name])
    words = [sys.executable, "-m", "fastfit_watch", *command.split(), "--config", str(settings)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert f"{settings}:" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_doctor_names_them_and_goes_on(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(BROKEN["date"])
    words = [sys.executable, "-m", "fastfit_watch", "doctor", "--config", str(settings)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "'watch.settle_s'" in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_running_daemon_keeps_the_settings_it_has(daemon: DaemonProcess) -> None:
    process = daemon.start()
    wait_for(lambda: (daemon.notes / "pid").exists(), daemon)
    settings = daemon.root / "settings.yaml"
    good = settings.read_text()
    for count, text in enumerate(BROKEN.values(), start=1):
        settings.write_text(text)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda count=count: _stderr(daemon).count("settings are kept as they were") == count, daemon)  # type: ignore[misc]
        assert process.poll() is None
    settings.write_text(good)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "settings read again" in _stderr(daemon), daemon)
    daemon.upload("spring", "casual")
    wait_for(lambda: daemon.is_final("spring"), daemon)
    job = daemon.read(lambda ledger: ledger.job("spring"))
    assert job is not None
    assert job.status is Status.DONE
    assert "Traceback" not in _stderr(daemon)


def _stderr(daemon: DaemonProcess) -> str:
    return (daemon.root / "stderr").read_text()
