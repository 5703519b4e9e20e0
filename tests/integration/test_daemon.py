"""The daemon as a process, over real folders, with an engine process that crashes, hangs and fails on demand."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from support.daemon_process import PATIENCE_S, DaemonProcess, wait_for

from fastfit_watch.domain.job import LookStatus, Status
from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def house(tmp_path: Path) -> Iterator[DaemonProcess]:
    house = DaemonProcess(tmp_path)
    yield house
    house.close()


def test_once_makes_everything_and_ends(house: DaemonProcess) -> None:
    house.upload("spring", "casual", "gala")
    house.upload("summer", "beach")
    assert house.drain() == ExitCode.OK
    assert set(house.pictures("spring")) == {"anna.casual.png", "anna.gala.png"}
    report = json.loads((house.outputs / "summer" / "report.json").read_text())
    assert report["status"] == "done"
    assert house.status("spring").startswith("done: 2 pictures")
    assert "done in" in (house.outputs / "spring" / "job.log").read_text()
    assert "beach" not in (house.outputs / "spring" / "job.log").read_text()
    assert (house.outputs / "index.html").exists()


def test_once_without_work_never_starts_the_engine(house: DaemonProcess) -> None:
    assert house.drain() == ExitCode.OK
    assert not (house.notes / "pid").exists()


def test_once_names_what_is_left(house: DaemonProcess) -> None:
    house.upload("spring", "casual")
    (house.inputs / "half").mkdir()
    (house.inputs / "half" / "outfit.yaml").write_text("person: anna.png\nupper: shirt.png\n")
    assert house.drain() == ExitCode.INCOMPLETE
    assert house.is_final("spring")
    assert "missing anna.png" in house.status("half")
    (house.inputs / "broken").mkdir()
    (house.inputs / "broken" / "outfit.yaml").write_text("persom: anna.png\n")
    assert house.drain() == ExitCode.INVALID
    house.upload("bad", "input")
    assert house.drain() == ExitCode.FAILED
    assert "Nobody is in the picture" in house.status("bad")


def test_a_poison_look_fails_after_three_deaths_and_its_neighbours_finish(house: DaemonProcess) -> None:
    house.upload("spring", "casual", "crash", "gala", "beach")
    assert house.drain() == ExitCode.FAILED
    looks = house.looks("spring")
    assert looks["crash"].status is LookStatus.FAILED
    assert "took the engine down three times" in looks["crash"].reason
    assert house.begun().count("spring/anna.crash") == 3
    assert {name for name, look in looks.items() if look.status is LookStatus.DONE} == {"casual", "gala", "beach"}
    assert all(looks[name].deaths == 0 for name in ("casual", "gala", "beach"))


def test_a_hung_engine_is_replaced(house: DaemonProcess) -> None:
    house.configure(stall_s=1.0)
    house.upload("spring", "hang-once", "gala")
    assert house.drain() == ExitCode.OK
    assert house.looks("spring")["hang-once"].deaths == 1


def test_out_of_memory_and_unknown_errors_are_tried_again(house: DaemonProcess) -> None:
    house.configure(max_attempts=3)
    house.upload("spring", "oom-once", "engine")
    assert house.drain() == ExitCode.FAILED
    looks = house.looks("spring")
    assert (looks["oom-once"].status, looks["oom-once"].attempts) == (LookStatus.DONE, 2)
    assert (looks["engine"].status, looks["engine"].attempts) == (LookStatus.FAILED, 3)
    assert looks["engine"].reason == "Something broke. (tried 3 times)"


def test_a_full_disk_pauses_the_queue_and_blames_no_one(house: DaemonProcess) -> None:
    (house.notes / "full").touch()
    house.upload("spring", "disk", "gala")
    house.start()
    wait_for(lambda: "No space left" in house.status("spring"), house)
    assert json.loads(house.read(lambda ledger: ledger.note("daemon")))["engine"].count("standing still") == 1
    (house.notes / "full").unlink()
    wait_for(lambda: house.is_final("spring"), house)
    look = house.looks("spring")["disk"]
    assert (look.status, look.attempts, look.deaths) == (LookStatus.DONE, 1, 0)


@pytest.mark.slow
def test_kill_9_at_any_moment_changes_no_byte(house: DaemonProcess, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = [f"slow-{number}" for number in range(5)]
    calm = DaemonProcess(tmp_path_factory.mktemp("calm"))
    calm.upload("spring", *names)
    assert calm.drain() == ExitCode.OK
    house.upload("spring", *names)
    for later_s in (0.0, 0.3, 0.6):
        enough = len(house.pictures("spring")) + 1
        daemon = house.start()
        wait_for(lambda enough=enough: len(house.pictures("spring")) >= enough, house)  # type: ignore[misc]
        time.sleep(later_s)
        worker = psutil.Process(int((house.notes / "pid").read_text()))
        daemon.kill()
        daemon.wait()
        psutil.wait_procs([worker], timeout=5)
        assert not worker.is_running()
    assert house.drain() == ExitCode.OK
    assert house.pictures("spring") == calm.pictures("spring")
    assert not list(house.root.rglob(".tmp-*"))


def test_a_finished_picture_is_not_made_again_after_a_crash(house: DaemonProcess) -> None:
    house.upload("spring", "orphan", "gala")
    assert house.drain() == -signal.SIGKILL
    assert house.looks("spring")["orphan"].status is LookStatus.RUNNING
    assert house.drain() == ExitCode.OK
    assert house.begun().count("spring/anna.orphan") == 1


def test_a_finished_picture_is_not_made_again_after_its_engine_died(house: DaemonProcess) -> None:
    house.upload("spring", "casual", "mute-once", "gala")
    assert house.drain() == ExitCode.OK
    assert house.begun().count("spring/anna.mute-once") == 1
    assert {look.status for look in house.looks("spring").values()} == {LookStatus.DONE}


def test_sigterm_finishes_the_look_in_hand(house: DaemonProcess) -> None:
    house.upload("spring", "slow-a", "slow-b", "slow-c")
    daemon = house.start()
    wait_for(lambda: house.begun(), house)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE_S) == ExitCode.OK
    looks = house.looks("spring")
    assert looks["slow-a"].status is LookStatus.DONE
    assert [looks[name].status for name in ("slow-b", "slow-c")] == [LookStatus.QUEUED] * 2
    assert looks["slow-b"].attempts == 0
    assert house.drain() == ExitCode.OK


def test_a_second_sigterm_stops_at_once_and_loses_nothing(house: DaemonProcess) -> None:
    house.upload("spring", "hang-once", "gala")
    daemon = house.start()
    wait_for(lambda: house.begun(), house)
    daemon.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert daemon.poll() is None
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(10) == ExitCode.OK
    assert house.looks("spring")["hang-once"].deaths == 0
    assert house.drain() == ExitCode.OK


def test_an_engine_that_cannot_load_is_no_reason_to_refuse_uploads(house: DaemonProcess) -> None:
    (house.notes / "load").write_text("refuse")
    house.upload("spring", "casual")
    assert house.drain() == ExitCode.ENGINE
    house.start()
    house.upload("summer", "beach")
    wait_for(lambda: house.status("summer").startswith("queued"), house)
    wait_for(lambda: "unet.safetensors is missing" in house.read(lambda ledger: ledger.note("daemon")), house)
    (house.notes / "load").unlink()
    wait_for(lambda: house.is_final("spring") and house.is_final("summer"), house)


@pytest.mark.parametrize("manner", ["crash", "hang"])
def test_an_engine_lost_while_loading_is_started_again(house: DaemonProcess, manner: str) -> None:
    house.configure(load_timeout_s=1.0)
    (house.notes / "load").write_text(manner)
    house.upload("spring", "casual")
    house.start()
    wait_for(lambda: "cannot load the engine" in (house.read(lambda ledger: ledger.note("daemon")) or ""), house)
    (house.notes / "load").unlink()
    wait_for(lambda: house.is_final("spring"), house)


def test_cancel_drops_what_is_queued(house: DaemonProcess) -> None:
    house.upload("spring", "slow-a", "slow-b", "slow-c", "slow-d")
    house.start()
    wait_for(lambda: house.begun(), house)
    house.read(lambda ledger: ledger.cancel("spring", time.time()))
    wait_for(lambda: house.is_final("spring"), house)
    statuses = {name: look.status for name, look in house.looks("spring").items()}
    assert statuses["slow-a"] is LookStatus.DONE
    assert statuses["slow-d"] is LookStatus.CANCELLED
    assert house.job("spring").status is Status.CANCELLED  # type: ignore[union-attr]


def test_a_second_daemon_is_refused(house: DaemonProcess) -> None:
    house.start()
    wait_for(lambda: (house.notes / "pid").exists(), house)
    second = house.start()
    assert second.wait(PATIENCE_S) != 0
    assert "already watching" in (house.root / "stderr").read_text()


def test_systemd_hears_ready_after_the_engine_and_stopping(house: DaemonProcess) -> None:
    address = str(house.root / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(PATIENCE_S)
        daemon = house.start(environment={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
        heard = [receiver.recv(4096).decode()]
        while "READY=1" not in heard:
            heard.append(receiver.recv(4096).decode())
        assert (house.notes / "pid").exists()
        while "WATCHDOG=1" not in heard:
            heard.append(receiver.recv(4096).decode())
        daemon.send_signal(signal.SIGTERM)
        while not heard[-1].startswith("STOPPING=1"):
            heard.append(receiver.recv(4096).decode())
    assert "STATUS=cpu ready (protocol)" in heard
    assert daemon.wait(PATIENCE_S) == ExitCode.OK


def test_sighup_applies_what_can_change_and_names_the_rest(house: DaemonProcess) -> None:
    daemon = house.start()
    wait_for(lambda: (house.notes / "pid").exists(), house)
    house.configure(max_attempts=1, dtype="float16")
    daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: "'engine.dtype' changed" in (house.root / "stderr").read_text(), house)
    house.upload("spring", "engine")
    wait_for(lambda: house.is_final("spring"), house)
    assert house.looks("spring")["engine"].attempts == 1


@pytest.mark.alone
def test_an_idle_daemon_costs_next_to_nothing(house: DaemonProcess) -> None:
    daemon = psutil.Process(house.start().pid)
    wait_for(lambda: "ready" in (house.read(lambda ledger: ledger.note("daemon")) or ""), house)
    time.sleep(1.0)
    before = sum(daemon.cpu_times()[:2])
    time.sleep(5.0)
    cpu_share = (sum(daemon.cpu_times()[:2]) - before) / 5.0
    assert cpu_share < 0.03  # settings here scan ten times as often as the defaults
    assert daemon.memory_info().rss < 100e6
