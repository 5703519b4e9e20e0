"""What systemd hears of a real daemon: over the notify socket, and in the journal."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon_process import PATIENCE_S, DaemonProcess, wait_for
from support.systemd_socket import Systemd

from fastfit_watch.domain.job import LookStatus
from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.close()
    if (daemon.notes / "holder").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((daemon.notes / "holder").read_text()), signal.SIGKILL)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


def _said(daemon: DaemonProcess) -> str:
    return (daemon.root / "stderr").read_text()


def test_a_reload_is_framed_even_if_the_settings_are_wrong(daemon: DaemonProcess, systemd: Systemd) -> None:
    process = daemon.start(environment=systemd.environment)
    wait_for(lambda: systemd.has("READY=1"), daemon)
    (daemon.root / "settings.yaml").write_text("engin: {}\n")
    before_us = time.monotonic_ns() // 1000
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: systemd.texts().count("READY=1") == 2, daemon)
    texts = systemd.texts()
    reloading = next(text for text in texts if text.startswith("RELOADING=1"))
    stamp_us = int(reloading.removeprefix("RELOADING=1\nMONOTONIC_USEC="))
    assert before_us <= stamp_us <= time.monotonic_ns() // 1000
    first, second = (index for index, text in enumerate(texts) if text == "READY=1")
    assert first < texts.index(reloading) < second
    assert "Did you mean 'engine'?" in _said(daemon)
    assert "settings are kept as they were" in _said(daemon)
    assert process.poll() is None


def test_ready_comes_after_the_engine_and_loading_asks_for_time(daemon: DaemonProcess, systemd: Systemd) -> None:
    (daemon.notes / "load").write_text("fetch")
    daemon.start(environment=systemd.environment)
    wait_for(lambda: systemd.texts().count("EXTEND_TIMEOUT_USEC=120000000") > 2, daemon)
    assert not systemd.has("READY=1")
    assert systemd.has("STATUS=cpu loading (fetching weights")
    (daemon.notes / "load").unlink()
    wait_for(lambda: systemd.has("READY=1"), daemon)
    assert systemd.has("STATUS=cpu ready (protocol)")
    extended = len(systemd.times("EXTEND_TIMEOUT_USEC=120000000"))
    pinged = len(systemd.times("WATCHDOG=1"))
    wait_for(lambda: len(systemd.times("WATCHDOG=1")) > pinged + 2, daemon)
    assert len(systemd.times("EXTEND_TIMEOUT_USEC=120000000")) == extended


def test_an_engine_that_loads_without_a_sign_gets_no_more_time(daemon: DaemonProcess, systemd: Systemd) -> None:
    daemon.configure(load_timeout_s=1.0, backoff_s=600, backoff_max_s=600)
    (daemon.notes / "load").write_text("hang")
    daemon.start(environment=systemd.environment)
    wait_for(lambda: systemd.has("READY=1"), daemon)
    assert systemd.has("STATUS=cpu cannot load the engine: loading took longer than 1 s")
    last_s = systemd.times("EXTEND_TIMEOUT_USEC=120000000")[-1]
    assert last_s < systemd.times("READY=1")[0]


def test_progress_keeps_the_watchdog_quiet_and_a_hang_that_nothing_ends_does_not(
    daemon: DaemonProcess, systemd: Systemd
) -> None:
    daemon.configure(stall_s=3.0)
    daemon.upload("spring", "steps", "stuck")
    daemon.start(environment=systemd.environment)
    wait_for(lambda: "spring/anna.stuck" in daemon.begun(), daemon)
    stuck_s = time.monotonic()
    pings = systemd.times("WATCHDOG=1")
    assert systemd.has("STATUS=cpu making spring/anna.steps, denoise ")
    wait_for(lambda: "no progress for" in _said(daemon), daemon)
    assert max(later - sooner for sooner, later in itertools.pairwise(pings)) < 3, "3 s of progress: no gap"
    time.sleep(3)
    late = [clock_s for clock_s in systemd.times("WATCHDOG=1") if clock_s > stuck_s + 4.0]
    assert late == [], "signs of life although nothing moves"


def test_a_stop_waits_for_the_look_in_hand_and_asks_for_the_time(daemon: DaemonProcess, systemd: Systemd) -> None:
    daemon.upload("spring", "steps")
    process = daemon.start(environment=systemd.environment)
    wait_for(daemon.begun, daemon)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == ExitCode.OK
    texts = systemd.texts()
    stopping = texts[texts.index("STOPPING=1") :]
    assert "EXTEND_TIMEOUT_USEC=120000000" in stopping
    assert any(text.startswith("STATUS=stopping; cpu making spring/anna.steps") for text in stopping)
    assert daemon.looks("spring")["steps"].status is LookStatus.DONE


def test_a_thread_that_dies_takes_the_daemon_with_it(daemon: DaemonProcess) -> None:
    """Half a daemon, which seems alive and takes no uploads, is worse than one that whoever started it starts again."""
    program = daemon.root / "broken.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\nimport fastfit_watch.intake.thread; from support import protocol_daemon\n"
        "def broken(*_): raise ValueError('two\\nlines')\n"
        "fastfit_watch.intake.thread.DecoderPool = broken\n"
        "sys.exit(protocol_daemon.run(Path(sys.argv[1]), once=False))\n"
    )
    with (daemon.root / "stderr").open("w+") as stream:
        facts = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        command = [sys.executable, str(program), str(daemon.root)]
        done = subprocess.run(command, stderr=stream, env=environment, timeout=PATIENCE_S, check=False)
    assert done.returncode == ExitCode.FAILED
    lines = _said(daemon).splitlines()
    assert "<2>    raise ValueError" in "\n".join(lines) or "<2>ValueError: two" in lines
    assert "<2>lines" in lines
    assert [line for line in lines if line[:1] != "<" or line[2:3] != ">"] == []


def test_errors_of_the_command_line_have_their_priority_in_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        facts = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        command = [sys.executable, "-m", "fastfit_watch", "run", "--config", "missing.yaml"]
        done = subprocess.run(command, cwd=tmp_path, stderr=stream, env=environment, timeout=PATIENCE_S, check=False)
    assert done.returncode == ExitCode.USAGE
    assert (tmp_path / "stderr").read_text().startswith("<3>error: Cannot read the configuration")


def test_the_watchdog_of_systemd_learns_where_every_thread_stood(daemon: DaemonProcess) -> None:
    process = daemon.start()
    wait_for(lambda: "engine ready" in _said(daemon), daemon)
    process.send_signal(signal.SIGABRT)
    assert process.wait(PATIENCE_S) == -signal.SIGABRT
    said = _said(daemon)
    assert "Fatal Python error: Aborted" in said
    assert "in _loop" in said, "the daemon's own thread, wherever it is just now"
    assert "thread.py" in said
