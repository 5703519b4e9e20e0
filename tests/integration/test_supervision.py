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
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.close()


def engines_of(daemon: DaemonProcess) -> list[str]:
    """Process ids in the order of the looks begun."""
    return (daemon.notes / "pids").read_text().split()


def engine_note(daemon: DaemonProcess) -> str:
    """What the status says of the engine."""
    note = daemon.read(lambda ledger: ledger.note("daemon"))
    return str(json.loads(note)["engine"]) if note else ""


@pytest.mark.parametrize(("deed", "end"), [("segfault-once", "SIGSEGV"), ("crash-once", "SIGKILL")])
def test_a_look_whose_engine_crashes_is_made_by_a_fresh_one(daemon: DaemonProcess, deed: str, end: str) -> None:
    daemon.upload("spring", "casual", deed, "gala")
    assert daemon.drain() == ExitCode.OK
    looks = daemon.looks("spring")
    assert {name: look.deaths for name, look in looks.items()} == {"casual": 0, deed: 1, "gala": 0}
    assert len(set(engines_of(daemon))) == 2
    assert f"the engine ended (signal {end})" in (daemon.root / "stderr").read_text()


def test_a_frozen_engine_is_ended_within_its_limit_and_its_look_made_again(daemon: DaemonProcess) -> None:
    daemon.configure(stall_s=2.0)
    daemon.upload("spring", "freeze-once", "gala")
    daemon.start()
    wait_for(lambda: daemon.begun(), daemon)
    frozen = psutil.Process(int(engines_of(daemon)[0]))
    began_s = time.monotonic()
    wait_for(lambda: not frozen.is_running() or frozen.status() == psutil.STATUS_ZOMBIE, daemon)
    assert time.monotonic() - began_s < 30, "its own limit, not the one of other tests"
    wait_for(lambda: daemon.is_final("spring"), daemon)
    looks = daemon.looks("spring")
    assert {name: (look.status, look.deaths) for name, look in looks.items()} == {
        "freeze-once": (LookStatus.DONE, 1),
        "gala": (LookStatus.DONE, 0),
    }
    assert "no progress for" in (daemon.root / "stderr").read_text()


def test_a_poison_look_is_set_aside_and_the_jobs_of_others_go_on(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "segfault")
    daemon.upload("summer", "casual", "gala")
    daemon.upload("winter", "beach")
    assert daemon.drain() == ExitCode.FAILED
    assert daemon.begun().count("spring/anna.segfault") == 3
    assert daemon.looks("spring")["segfault"].reason.startswith("it took the engine down three times")
    for name in ("summer", "winter"):
        assert {(look.status, look.deaths) for look in daemon.looks(name).values()} == {(LookStatus.DONE, 0)}
    assert "three times" in daemon.status("spring")


@pytest.mark.parametrize("manner", ["exit", "refuse"])
def test_an_engine_that_cannot_start_is_tried_less_and_less_often_while_uploads_are_accepted(
    daemon: DaemonProcess, manner: str
) -> None:
    daemon.configure(backoff_s=0.4, backoff_max_s=100)
    (daemon.notes / "load").write_text(manner)
    daemon.start()
    daemon.upload("spring", "casual")
    log = daemon.root / "stderr"
    wait_for(lambda: "next start in 2 s" in log.read_text(), daemon)  # 0.4, 0.8, 1.6
    assert log.read_text().count("starting the engine") == 3
    reason = "exit code 3" if manner == "exit" else "unet.safetensors is missing"
    assert "cannot load the engine" in engine_note(daemon) and reason in engine_note(daemon)
    wait_for(lambda: daemon.status("spring").startswith("queued"), daemon)
    daemon.upload("summer", "beach")
    wait_for(lambda: daemon.status("summer").startswith("queued"), daemon)
    (daemon.notes / "load").unlink()
    wait_for(lambda: daemon.is_final("spring") and daemon.is_final("summer"), daemon)
    assert daemon.looks("spring")["casual"].attempts == 1, "a start that fails costs no look an attempt"


def test_a_poisoned_device_is_left_to_a_fresh_process(daemon: DaemonProcess) -> None:
    daemon.upload("spring", "sticky-once", "gala")
    assert daemon.drain() == ExitCode.OK
    looks = daemon.looks("spring")
    assert (looks["sticky-once"].attempts, looks["sticky-once"].deaths) == (2, 0)
    assert (looks["gala"].attempts, looks["gala"].deaths) == (1, 0)
    first, *later = engines_of(daemon)
    assert later and first not in later, "nothing more was tried in the poisoned process"


def test_an_engine_that_holds_too_much_memory_is_renewed_without_a_pause(daemon: DaemonProcess) -> None:
    daemon.configure(backoff_s=PATIENCE_S, backoff_max_s=PATIENCE_S)
    daemon.upload("spring", "grow-a", "grow-b", "gala")
    assert daemon.drain() == ExitCode.OK
    assert {(look.attempts, look.deaths) for look in daemon.looks("spring").values()} == {(1, 0)}
    assert len(set(engines_of(daemon))) == 3
    assert "held more memory" in (daemon.root / "stderr").read_text()


def test_the_real_engine_is_renewed_above_its_limit(tmp_path: Path) -> None:
    process = RunningDaemon(tmp_path / "box")
    settings = json.loads((process.home / "config.yaml").read_text())
    settings["engine"] = {"devices": ["cpu"], "max_rss_bytes": 1}
    (process.home / "config.yaml").write_text(json.dumps(settings))
    draw_upload(tmp_path / "spring", looks=2).rename(process.inputs / "spring")
    process.start()
    try:
        process.wait_done("spring")
        assert {look["status"] for look in process.report("spring")["looks"]} == {"done"}
        assert {look["attempts"] for look in process.report("spring")["looks"]} == {1}
        words = (process.home / "daemon.log").read_text()
        assert "engine.max_rss_bytes allows 0.00 GB: a fresh one takes over" in words
        assert words.count("engine ready with mini") >= 2
    finally:
        process.stop()


def test_a_look_that_takes_the_daemon_down_is_set_aside_and_its_neighbour_made(daemon: DaemonProcess) -> None:
    daemon.configure(max_attempts=2, max_deaths=2)
    daemon.upload("spring", "murder", "gala")
    for _ in range(2):
        assert daemon.drain() == -signal.SIGKILL
    assert daemon.drain() == ExitCode.FAILED
    assert daemon.begun().count("spring/anna.murder") == 2
    looks = daemon.looks("spring")
    assert looks["murder"].reason == "the daemon ended while making it (tried 2 times)"
    assert (looks["gala"].status, looks["gala"].deaths) == (LookStatus.DONE, 0)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, for a disk that fails")
def test_a_daemon_started_on_a_full_disk_stands_still_again_and_goes_on_by_itself(
    daemon: DaemonProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("disk")
    source = Path(__file__).parents[1] / "campaigns" / "faulty_disk.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", place / "disk.so", source, "-ldl"], check=True)
    state = place / "state"
    state.write_bytes(struct.pack("qq", 0, 0))
    disk = {
        "LD_PRELOAD": str(place / "disk.so"),
        "FAULTY_ROOT": str(daemon.root),
        "FAULTY_STATE": str(state),
        "FAULTY_ERRNO": str(errno.ENOSPC),
    }

    def let_disk_be(full: bool) -> None:
        with state.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack("q", -1 if full else 0))

    def says_it_stands_still() -> bool:
        return "the queue stands still" in (daemon.root / "stderr").read_text()

    daemon.upload("spring", "steps-a", "gala")
    process = daemon.start(environment=disk)
    wait_for(lambda: daemon.begun(), daemon)
    let_disk_be(full=True)
    wait_for(says_it_stands_still, daemon)
    for end in (signal.SIGKILL, signal.SIGTERM):
        process.send_signal(end)
        process.wait(PATIENCE_S)
        (daemon.root / "stderr").unlink()
        process = daemon.start(environment=disk)
        wait_for(says_it_stands_still, daemon)
        time.sleep(2.0)
        assert process.poll() is None, "it does not give up"
    let_disk_be(full=False)
    wait_for(lambda: daemon.is_final("spring"), daemon)
    assert {(look.status, look.deaths) for look in daemon.looks("spring").values()} == {(LookStatus.DONE, 0)}
