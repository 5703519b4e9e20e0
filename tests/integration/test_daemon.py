"""The daemon as a process, over real folders, with an engine process that crashes, hangs and fails on demand."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from support.daemon_process import PATIENCE_S, DaemonProcess, wait_for

from fastfit_watch.domain.job import LookStatus, Status
from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.close()


def test_once_makes_everything_and_ends(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "casual", "gala")
    daemon.upload("summer", "beach")
    assert daemon.drain() == ExitCode.OK
    assert set(daemon.pictures("spring")) == {"anna.casual.png", "anna.gala.png"}
    report = json.loads((daemon.outputs / "summer" / "report.json").read_text())
    assert report["status"] == "done"
    assert daemon.status("spring").startswith("done: 2 pictures")
    assert "done in" in (daemon.outputs / "spring" / "job.log").read_text()
    assert "beach" not in (daemon.outputs / "spring" / "job.log").read_text()
    assert (daemon.outputs / "index.html").exists()


def test_once_without_work_never_starts_the_engine(daemon: DaemonProcess) -> None:
    assert daemon.drain() == ExitCode.OK
    assert not (daemon.notes / "pid").exists()


def test_once_names_what_is_left(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "casual")
    (daemon.inputs / "half").mkdir()
    (daemon.inputs / "half" / "outfit.yaml").write_text("person: anna.png\nupper: shirt.png\n")
    assert daemon.drain() == ExitCode.INCOMPLETE
    assert daemon.is_final("spring")
    assert "missing anna.png" in daemon.status("half")
    (daemon.inputs / "broken").mkdir()
    (daemon.inputs / "broken" / "outfit.yaml").write_text("persom: anna.png\n")
    assert daemon.drain() == ExitCode.INVALID
    daemon.upload("bad", "input")
    assert daemon.drain() == ExitCode.FAILED
    assert "Nobody is in the picture" in daemon.status("bad")


def test_a_poison_look_fails_after_three_deaths_and_its_neighbours_finish(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "casual", "crash", "gala", "beach")
    assert daemon.drain() == ExitCode.FAILED
    looks = daemon.looks("spring")
    assert looks["crash"].status is LookStatus.FAILED
    assert "took the engine down three times" in looks["crash"].reason
    assert daemon.begun().count("spring/anna.crash") == 3
    assert {name for name, look in looks.items() if look.status is LookStatus.DONE} == {"casual", "gala", "beach"}
    assert all(looks[name].deaths == 0 for name in ("casual", "gala", "beach"))


def test_a_hung_engine_is_replaced(daemon: DaemonProcess) -> None:
    daemon.configure(stall_s=1.0)
    daemon.upload("spring", "hang-once", "gala")
    assert daemon.drain() == ExitCode.OK
    assert daemon.looks("spring")["hang-once"].deaths == 1


def test_out_of_memory_and_unknown_errors_are_tried_again(daemon: DaemonProcess) -> None:
    daemon.configure(max_attempts=3)
    daemon.upload("spring", "oom-once", "engine")
    assert daemon.drain() == ExitCode.FAILED
    looks = daemon.looks("spring")
    assert (looks["oom-once"].status, looks["oom-once"].attempts) == (LookStatus.DONE, 2)
    assert (looks["engine"].status, looks["engine"].attempts) == (LookStatus.FAILED, 3)
    assert looks["engine"].reason == "Something broke. (tried 3 times)"


def test_a_full_disk_pauses_the_queue_and_blames_no_one(daemon: DaemonProcess) -> None:
    (daemon.notes / "full").touch()
    daemon.upload("spring", "disk", "gala")
    daemon.start()
    wait_for(lambda: "No space left" in daemon.status("spring"), daemon)
    assert json.loads(daemon.read(lambda ledger: ledger.note("daemon")))["engine"].count("standing still") == 1
    (daemon.notes / "full").unlink()
    wait_for(lambda: daemon.is_final("spring"), daemon)
    look = daemon.looks("spring")["disk"]
    assert (look.status, look.attempts, look.deaths) == (LookStatus.DONE, 1, 0)


@pytest.mark.slow
def test_kill_9_at_any_moment_changes_no_byte(daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = [f"slow-{number}" for number in range(5)]
    calm = DaemonProcess(tmp_path_factory.mktemp("calm"))
    calm.upload("spring", *names)
    assert calm.drain() == ExitCode.OK
    daemon.upload("spring", *names)
    for later_s in (0.0, 0.3, 0.6):
        enough = len(daemon.pictures("spring")) + 1
        process = daemon.start()
        wait_for(lambda enough=enough: len(daemon.pictures("spring")) >= enough, daemon)  # type: ignore[misc]
        time.sleep(later_s)
        worker = psutil.Process(int((daemon.notes / "pid").read_text()))
        process.kill()
        process.wait()
        psutil.wait_procs([worker], timeout=PATIENCE_S)
        assert not worker.is_running()
    assert daemon.drain() == ExitCode.OK
    assert daemon.pictures("spring") == calm.pictures("spring")
    assert not list(daemon.root.rglob(".tmp-*"))


def test_a_finished_picture_is_not_made_again_after_a_crash(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "orphan", "gala")
    assert daemon.drain() == -signal.SIGKILL
    assert daemon.looks("spring")["orphan"].status is LookStatus.RUNNING
    assert daemon.drain() == ExitCode.OK
    assert daemon.begun().count("spring/anna.orphan") == 1


def test_a_finished_picture_is_not_made_again_after_its_engine_died(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "casual", "mute-once", "gala")
    assert daemon.drain() == ExitCode.OK
    assert daemon.begun().count("spring/anna.mute-once") == 1
    assert {look.status for look in daemon.looks("spring").values()} == {LookStatus.DONE}


def test_sigterm_finishes_the_look_in_hand(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "slow-a", "slow-b", "slow-c")
    process = daemon.start()
    wait_for(lambda: daemon.begun(), daemon)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == ExitCode.OK
    looks = daemon.looks("spring")
    assert looks["slow-a"].status is LookStatus.DONE
    assert [looks[name].status for name in ("slow-b", "slow-c")] == [LookStatus.QUEUED] * 2
    assert looks["slow-b"].attempts == 0
    assert daemon.drain() == ExitCode.OK


def test_a_second_sigterm_stops_at_once_and_loses_nothing(daemon: DaemonProcess) -> None:
    daemon.configure(stall_s=2 * PATIENCE_S)  # only the second signal can end the look that hangs
    daemon.upload("spring", "hang-once", "gala")
    process = daemon.start()
    wait_for(lambda: daemon.begun(), daemon)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping: a look in hand" in (daemon.root / "stderr").read_text(), daemon)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == ExitCode.OK
    assert daemon.looks("spring")["hang-once"].deaths == 0
    assert daemon.drain() == ExitCode.OK


def test_an_engine_that_cannot_load_is_no_reason_to_refuse_uploads(daemon: DaemonProcess) -> None:
    (daemon.notes / "load").write_text("refuse")
    daemon.upload("spring", "casual")
    assert daemon.drain() == ExitCode.ENGINE
    daemon.start()
    daemon.upload("summer", "beach")
    wait_for(lambda: daemon.status("summer").startswith("queued"), daemon)
    wait_for(lambda: "unet.safetensors is missing" in daemon.read(lambda ledger: ledger.note("daemon")), daemon)
    (daemon.notes / "load").unlink()
    wait_for(lambda: daemon.is_final("spring") and daemon.is_final("summer"), daemon)


@pytest.mark.parametrize("manner", ["crash", "hang"])
def test_an_engine_lost_while_loading_is_started_again(daemon: DaemonProcess, manner: str) -> None:
    daemon.configure(load_timeout_s=1.0)
    (daemon.notes / "load").write_text(manner)
    daemon.upload("spring", "casual")
    daemon.start()
    wait_for(lambda: "cannot load the engine" in (daemon.read(lambda ledger: ledger.note("daemon")) or ""), daemon)
    (daemon.notes / "load").unlink()
    wait_for(lambda: daemon.is_final("spring"), daemon)


def test_cancel_drops_what_is_queued(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "slow-a", "slow-b", "slow-c", "slow-d")
    daemon.start()
    wait_for(lambda: daemon.begun(), daemon)
    daemon.read(lambda ledger: ledger.requests.cancel("spring", time.time()))
    wait_for(lambda: daemon.is_final("spring"), daemon)
    statuses = {name: look.status for name, look in daemon.looks("spring").items()}
    assert statuses["slow-a"] is LookStatus.DONE
    assert statuses["slow-d"] is LookStatus.CANCELLED
    assert daemon.job("spring").status is Status.CANCELLED  # type: ignore[union-attr]


def test_a_second_daemon_is_refused(daemon: DaemonProcess) -> None:
    daemon.start()
    wait_for(lambda: (daemon.notes / "pid").exists(), daemon)
    second = daemon.start()
    assert second.wait(PATIENCE_S) != 0
    assert "already watching" in (daemon.root / "stderr").read_text()


def test_a_second_daemon_is_refused_though_the_lock_file_was_removed(daemon: DaemonProcess) -> None:
    process = daemon.start()
    wait_for(lambda: (daemon.notes / "pid").exists(), daemon)
    lock = daemon.inputs / ".spool" / "lock"
    lock.unlink()
    assert daemon.start().wait(PATIENCE_S) != 0
    assert "already watching" in (daemon.root / "stderr").read_text()
    wait_for(lambda: lock.exists() and lock.read_text() == f"{process.pid}\n", daemon)


def test_a_second_daemon_with_other_inputs_is_refused_the_same_outputs(daemon: DaemonProcess) -> None:
    daemon.start()
    wait_for(lambda: (daemon.notes / "pid").exists(), daemon)
    settings = (daemon.root / "settings.yaml").read_text()
    (daemon.root / "settings.yaml").write_text(settings.replace(str(daemon.inputs), str(daemon.root / "others")))
    assert daemon.start().wait(PATIENCE_S) != 0
    assert f"already writes into {daemon.outputs}" in (daemon.root / "stderr").read_text()


def test_systemd_hears_ready_after_the_engine_and_stopping(daemon: DaemonProcess) -> None:
    address = str(daemon.root / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(PATIENCE_S)
        process = daemon.start(environment={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
        heard = [receiver.recv(4096).decode()]
        while "READY=1" not in heard:
            heard.append(receiver.recv(4096).decode())
        assert (daemon.notes / "pid").exists()
        while "WATCHDOG=1" not in heard:
            heard.append(receiver.recv(4096).decode())
        process.send_signal(signal.SIGTERM)
        while not heard[-1].startswith("STOPPING=1"):
            heard.append(receiver.recv(4096).decode())
    assert "STATUS=cpu ready (protocol)" in heard
    assert process.wait(PATIENCE_S) == ExitCode.OK


def test_sighup_applies_what_can_change_and_names_the_rest(daemon: DaemonProcess) -> None:
    process = daemon.start()
    wait_for(lambda: (daemon.notes / "pid").exists(), daemon)
    daemon.configure(max_attempts=1, dtype="float16")
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "'engine.dtype' changed" in (daemon.root / "stderr").read_text(), daemon)
    daemon.upload("spring", "engine")
    wait_for(lambda: daemon.is_final("spring"), daemon)
    assert daemon.looks("spring")["engine"].attempts == 1


@pytest.mark.alone
def test_an_idle_daemon_costs_next_to_nothing(daemon: DaemonProcess) -> None:
    process = psutil.Process(daemon.start().pid)
    wait_for(lambda: "ready" in (daemon.read(lambda ledger: ledger.note("daemon")) or ""), daemon)
    time.sleep(1.0)
    start_s = sum(process.cpu_times()[:2])
    time.sleep(5.0)
    # Settings here scan ten times as often as the defaults.
    assert sum(process.cpu_times()[:2]) - start_s < start_s / 4, "five idle seconds cost a small part of a start"
    program = "import loguru, pydantic, watchdog.observers, yaml; print(open('/proc/self/statm').read().split()[1])"
    libraries = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.memory_info().rss < 3 * int(libraries.stdout) * os.sysconf("SC_PAGE_SIZE")
