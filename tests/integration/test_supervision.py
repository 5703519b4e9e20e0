"""Whatever becomes of the engine process, the daemon lives, its look is made again, and no neighbour is harmed."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from support.daemon_process import PATIENCE_S, DaemonProcess, wait_for
from support.running_daemon import RunningDaemon, draw_upload

from fastfit_watch.domain.job import LookStatus
from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def house(tmp_path: Path) -> Iterator[DaemonProcess]:
    house = DaemonProcess(tmp_path)
    yield house
    house.close()


def engines_of(house: DaemonProcess) -> list[str]:
    """Process ids in the order of the looks begun."""
    return (house.notes / "pids").read_text().split()


def engine_note(house: DaemonProcess) -> str:
    """What the status says of the engine."""
    note = house.read(lambda ledger: ledger.note("daemon"))
    return str(json.loads(note)["engine"]) if note else ""


@pytest.mark.parametrize(("deed", "end"), [("segfault-once", "SIGSEGV"), ("crash-once", "SIGKILL")])
def test_a_look_whose_engine_crashes_is_made_by_a_fresh_one(house: DaemonProcess, deed: str, end: str) -> None:
    house.upload("spring", "casual", deed, "gala")
    assert house.drain() == ExitCode.OK
    looks = house.looks("spring")
    assert {name: look.deaths for name, look in looks.items()} == {"casual": 0, deed: 1, "gala": 0}
    assert len(set(engines_of(house))) == 2
    assert f"the engine ended (signal {end})" in (house.root / "stderr").read_text()


def test_a_frozen_engine_is_ended_within_its_limit_and_its_look_made_again(house: DaemonProcess) -> None:
    house.configure(stall_s=2.0)
    house.upload("spring", "freeze-once", "gala")
    house.start()
    wait_for(lambda: house.begun(), house)
    frozen = psutil.Process(int(engines_of(house)[0]))
    began_s = time.monotonic()
    wait_for(lambda: not frozen.is_running() or frozen.status() == psutil.STATUS_ZOMBIE, house)
    assert time.monotonic() - began_s < 2.0 + 10.0, "the limit, and what a busy machine adds"
    wait_for(lambda: house.is_final("spring"), house)
    looks = house.looks("spring")
    assert {name: (look.status, look.deaths) for name, look in looks.items()} == {
        "freeze-once": (LookStatus.DONE, 1),
        "gala": (LookStatus.DONE, 0),
    }
    assert "no progress for" in (house.root / "stderr").read_text()


def test_a_poison_look_is_set_aside_and_the_jobs_of_others_go_on(house: DaemonProcess) -> None:
    house.upload("spring", "segfault")
    house.upload("summer", "casual", "gala")
    house.upload("winter", "beach")
    assert house.drain() == ExitCode.FAILED
    assert house.begun().count("spring/anna.segfault") == 3
    assert house.looks("spring")["segfault"].reason.startswith("it took the engine down three times")
    for name in ("summer", "winter"):
        assert {(look.status, look.deaths) for look in house.looks(name).values()} == {(LookStatus.DONE, 0)}
    assert "three times" in house.status("spring")


@pytest.mark.parametrize("manner", ["exit", "refuse"])
def test_an_engine_that_cannot_start_is_tried_less_and_less_often_while_uploads_are_accepted(
    house: DaemonProcess, manner: str
) -> None:
    house.configure(backoff_s=0.4, backoff_max_s=100)
    (house.notes / "load").write_text(manner)
    house.start()
    house.upload("spring", "casual")
    log = house.root / "stderr"
    wait_for(lambda: "next start in 2 s" in log.read_text(), house)  # 0.4, 0.8, 1.6
    assert log.read_text().count("starting the engine") == 3
    reason = "exit code 3" if manner == "exit" else "unet.safetensors is missing"
    assert "cannot load the engine" in engine_note(house) and reason in engine_note(house)
    wait_for(lambda: house.status("spring").startswith("queued"), house)
    house.upload("summer", "beach")
    wait_for(lambda: house.status("summer").startswith("queued"), house)
    (house.notes / "load").unlink()
    wait_for(lambda: house.is_final("spring") and house.is_final("summer"), house)
    assert house.looks("spring")["casual"].attempts == 1, "a start that fails costs no look an attempt"


def test_a_poisoned_device_is_left_to_a_fresh_process(house: DaemonProcess) -> None:
    house.upload("spring", "sticky-once", "gala")
    assert house.drain() == ExitCode.OK
    looks = house.looks("spring")
    assert (looks["sticky-once"].attempts, looks["sticky-once"].deaths) == (2, 0)
    assert (looks["gala"].attempts, looks["gala"].deaths) == (1, 0)
    first, *later = engines_of(house)
    assert later and first not in later, "nothing more was tried in the poisoned process"


def test_an_engine_that_holds_too_much_memory_is_renewed_without_a_pause(house: DaemonProcess) -> None:
    house.configure(backoff_s=PATIENCE_S, backoff_max_s=PATIENCE_S)
    house.upload("spring", "grow-a", "grow-b", "gala")
    assert house.drain() == ExitCode.OK
    assert {(look.attempts, look.deaths) for look in house.looks("spring").values()} == {(1, 0)}
    assert len(set(engines_of(house))) == 3
    assert "held more memory" in (house.root / "stderr").read_text()


def test_the_real_engine_is_renewed_above_its_limit(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path / "box")
    settings = json.loads((daemon.home / "config.yaml").read_text())
    settings["engine"] = {"devices": ["cpu"], "max_rss_bytes": 1}
    (daemon.home / "config.yaml").write_text(json.dumps(settings))
    draw_upload(tmp_path / "spring", looks=2).rename(daemon.inputs / "spring")
    daemon.start()
    try:
        daemon.wait_done("spring")
        assert {look["status"] for look in daemon.report("spring")["looks"]} == {"done"}
        assert {look["attempts"] for look in daemon.report("spring")["looks"]} == {1}
        words = (daemon.home / "daemon.log").read_text()
        assert "engine.max_rss_bytes allows 0.00 GB: a fresh one takes over" in words
        assert words.count("engine ready with mini") >= 2
    finally:
        daemon.stop()


def test_a_look_that_takes_the_daemon_down_is_set_aside_and_its_neighbour_made(house: DaemonProcess) -> None:
    house.configure(max_attempts=2, max_deaths=2)
    house.upload("spring", "murder", "gala")
    for _ in range(2):
        assert house.drain() == -signal.SIGKILL
    assert house.drain() == ExitCode.FAILED
    assert house.begun().count("spring/anna.murder") == 2
    looks = house.looks("spring")
    assert looks["murder"].reason == "the daemon ended while making it (tried 2 times)"
    assert (looks["gala"].status, looks["gala"].deaths) == (LookStatus.DONE, 0)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, for a disk that fails")
def test_a_daemon_started_on_a_full_disk_stands_still_again_and_goes_on_by_itself(
    house: DaemonProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("disk")
    source = Path(__file__).parents[1] / "campaigns" / "faulty_disk.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", place / "disk.so", source, "-ldl"], check=True)
    state = place / "state"
    state.write_bytes(struct.pack("qq", 0, 0))
    disk = {
        "LD_PRELOAD": str(place / "disk.so"),
        "FAULTY_ROOT": str(house.root),
        "FAULTY_STATE": str(state),
        "FAULTY_ERRNO": str(errno.ENOSPC),
    }

    def let_disk_be(full: bool) -> None:
        with state.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack("q", -1 if full else 0))

    def says_it_stands_still() -> bool:
        return "the queue stands still" in (house.root / "stderr").read_text()

    house.upload("spring", "steps-a", "gala")
    daemon = house.start(environment=disk)
    wait_for(lambda: house.begun(), house)
    let_disk_be(full=True)
    wait_for(says_it_stands_still, house)
    for end in (signal.SIGKILL, signal.SIGTERM):
        daemon.send_signal(end)
        daemon.wait(PATIENCE_S)
        (house.root / "stderr").unlink()
        daemon = house.start(environment=disk)
        wait_for(says_it_stands_still, house)
        time.sleep(2.0)
        assert daemon.poll() is None, "it does not give up"
    let_disk_be(full=False)
    wait_for(lambda: house.is_final("spring"), house)
    assert {(look.status, look.deaths) for look in house.looks("spring").values()} == {(LookStatus.DONE, 0)}
