"""Stop, reload and a second signal, in every state of a real daemon."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from support.daemon_process import PATIENCE_S, DaemonProcess, wait_for
from support.systemd_socket import Systemd

from fastfit_watch.config.paths import LOG_FILE
from fastfit_watch.domain.job import LookStatus
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


def _said(daemon: DaemonProcess) -> str:
    return (daemon.root / "stderr").read_text()


def _engine_text(daemon: DaemonProcess) -> str:
    return daemon.read(lambda ledger: ledger.note("daemon")) or ""


# Each state: how to bring a fresh daemon into it, and how to see that it is there.


def _loading(daemon: DaemonProcess) -> Callable[[], object]:
    (daemon.notes / "load").write_text("hang")
    daemon.upload("spring", "casual")
    return lambda: (daemon.notes / "pid").exists() and daemon.status("spring").startswith("queued")


def _fetching(daemon: DaemonProcess) -> Callable[[], object]:
    (daemon.notes / "load").write_text("fetch")
    daemon.upload("spring", "casual")
    return lambda: "fetching weights" in _engine_text(daemon) and daemon.status("spring").startswith("queued")


def _backing_off(daemon: DaemonProcess) -> Callable[[], object]:
    daemon.configure(backoff_s=600, backoff_max_s=600)
    (daemon.notes / "load").write_text("crash")
    daemon.upload("spring", "casual")
    return lambda: "cannot load the engine" in _engine_text(daemon) and daemon.status("spring").startswith("queued")


def _idle(daemon: DaemonProcess) -> Callable[[], object]:
    return lambda: "ready" in _engine_text(daemon)


def _mid_look(daemon: DaemonProcess) -> Callable[[], object]:
    daemon.upload("spring", "steps", "slow")
    return daemon.begun


def _hung(daemon: DaemonProcess) -> Callable[[], object]:
    daemon.upload("spring", "hang", "gala")
    return daemon.begun


def _paused(daemon: DaemonProcess) -> Callable[[], object]:
    daemon.upload("spring", "casual")
    (daemon.inputs / ".spool").mkdir(mode=0o700)
    ledger = Ledger(daemon.inputs / ".spool" / "ledger.db")
    ledger.requests.pause("lunch", time.time())
    ledger.close()
    return lambda: "ready" in _engine_text(daemon) and "paused" in daemon.status("spring")


STATES = [_loading, _fetching, _backing_off, _idle, _mid_look, _paused]
NOT_READY = (_loading, _fetching)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__[1:])
def test_reload_and_stop_in_every_state(
    state: Callable[[DaemonProcess], Callable[[], object]], daemon: DaemonProcess, systemd: Systemd
) -> None:
    reached = state(daemon)
    process = daemon.start(environment=systemd.environment)
    wait_for(reached, daemon)
    if state not in NOT_READY:
        # The word to systemd is sent before the ledger's, but read by another thread: it may come later.
        wait_for(lambda: systemd.has("READY=1"), daemon)

    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "settings read again" in _said(daemon), daemon)
    assert process.poll() is None
    if state in NOT_READY:
        assert not systemd.has("RELOADING=1")
        assert not systemd.has("READY=1"), "a reload must not end the start"
    else:
        wait_for(lambda: systemd.texts().count("READY=1") == 2, daemon)

    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == ExitCode.OK
    texts = systemd.texts()
    assert texts.count("STOPPING=1") == 1
    assert "READY=1" not in texts[texts.index("STOPPING=1") :]
    looks = daemon.looks("spring")
    assert all(look.deaths == 0 for look in looks.values())
    wanted = {
        "steps": LookStatus.DONE,
        "slow": LookStatus.QUEUED,
        "gala": LookStatus.QUEUED,
        "casual": LookStatus.QUEUED,
    }
    assert {name: look.status for name, look in looks.items()} == {name: wanted[name] for name in looks}

    (daemon.notes / "load").unlink(missing_ok=True)
    daemon.read(lambda ledger: ledger.requests.resume(time.time()))
    assert daemon.drain() == ExitCode.OK
    assert set(daemon.begun()) == {f"spring/anna.{name}" for name in looks}


@pytest.mark.parametrize("state", [_loading, _hung], ids=lambda state: state.__name__[1:])
def test_a_second_signal_stops_at_once(
    state: Callable[[DaemonProcess], Callable[[], object]], daemon: DaemonProcess
) -> None:
    reached = state(daemon)
    process = daemon.start()
    wait_for(reached, daemon)
    engine = psutil.Process(int((daemon.notes / "pid").read_text()))
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping: a look in hand" in _said(daemon), daemon)
    began_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    # Without the second signal, an engine that does not listen is given 5 s, and a look its time.
    wait_for(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE, daemon)
    assert time.monotonic() - began_s < 4
    assert process.wait(PATIENCE_S) == ExitCode.OK
    assert not engine.is_running()
    assert all(look.deaths == 0 and look.status is LookStatus.QUEUED for look in daemon.looks("spring").values())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_signals_that_come_before_the_daemon_is_set_up(number: signal.Signals, daemon: DaemonProcess) -> None:
    """Listing the GPUs may take its time. SIGHUP ends a process that is not prepared, and systemd calls that clean."""
    daemon.configure(devices=["auto"])
    tools = daemon.root / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\ntouch {tools}/asked\nsleep 1\nexit 1\n")
    (tools / "nvidia-smi").chmod(0o755)
    process = daemon.start(environment={"PATH": f"{tools}:{os.environ['PATH']}"})
    wait_for((tools / "asked").exists, daemon)
    process.send_signal(number)
    if number == signal.SIGHUP:
        wait_for(lambda: "settings read again" in _said(daemon), daemon)
        process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == ExitCode.OK


def test_the_lock_names_a_process_only_while_there_is_one(daemon: DaemonProcess) -> None:
    """People stop a daemon by `kill -TERM "$(cat inputs/.spool/lock)"`."""
    process = daemon.start()
    wait_for(_idle(daemon), daemon)
    lock = daemon.inputs / ".spool" / "lock"
    assert int(lock.read_text()) == process.pid
    os.kill(int(lock.read_text()), signal.SIGTERM)
    assert process.wait(PATIENCE_S) == ExitCode.OK
    assert lock.read_text() == ""


def test_a_standard_error_that_nobody_reads_stops_neither_work_nor_sigterm(daemon: DaemonProcess) -> None:
    """A full pipe, as behind a terminal stopped with Ctrl-S."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"." * 4096):
            pass
    os.set_blocking(writing, True)
    process = daemon.start(stderr=writing)
    os.close(writing)
    daemon.upload("spring", "casual")
    wait_for(lambda: daemon.is_final("spring"), daemon)
    process.terminate()
    assert process.wait(PATIENCE_S) == ExitCode.OK
    assert "stopped" in (daemon.root / "logs" / LOG_FILE).read_text().splitlines()[-1]
    os.close(reading)


def test_the_status_of_a_job_says_that_the_daemon_stopped_and_later_that_it_goes_on(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "steps", "slow")
    process = daemon.start()
    wait_for(daemon.begun, daemon)
    process.terminate()
    assert process.wait(PATIENCE_S) == ExitCode.OK
    assert re.match(r"running: 1 of 2 \(paused: the daemon stopped at 20\d\d-\d\d-\d\d ", daemon.status("spring"))
    daemon.drain()
    assert daemon.status("spring").startswith("done: 2 pictures")
