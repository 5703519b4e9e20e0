"""Intake when the disk, the folder or the daemon fails, and as a running loop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from support.intake_fixture import FILES, MANIFEST, IntakeFixture, picture

from fastfit_watch.config.settings import WatchSettings
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.intake.loop import NOTE
from fastfit_watch.intake.thread import IntakeThread
from fastfit_watch.system.failpoints import VARIABLE

PATIENCE_S = 60.0
# Intake as the daemon runs it, until every upload is claimed; may be killed at any step.
RUN_PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.intake_fixture import IntakeFixture
intake = IntakeFixture(Path(sys.argv[1]))
intake.open()
intake.step(); intake.step(5.0)
intake.close()
"""


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[IntakeFixture]:
    with IntakeFixture.at(tmp_path / "inputs") as intake:
        yield intake


@pytest.mark.parametrize(
    "step", ["spool.copy", "spool.rename.before", "ledger.finish_claim.before", "ledger.sight.before"]
)
def test_a_full_disk_pauses_and_resumes_by_itself(
    intake: IntakeFixture, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    intake.upload()
    monkeypatch.setenv(VARIABLE, f"{step}:1:ENOSPC")
    intake.settle()
    intake.step(2.0)
    reason = intake.ledger.note(NOTE) or ""
    words = "No space left on device" if step.startswith("ledger.") else "the disk is full"  # SQLite's file, and ours
    assert reason.startswith("paused: ")
    assert words in reason
    assert all(job.status is Status.WAITING for job in intake.ledger.jobs()), "the job is not blamed"
    monkeypatch.delenv(VARIABLE)
    intake.settle()
    assert (intake.job().status, intake.ledger.note(NOTE)) == (Status.QUEUED, "")


def test_too_little_room_pauses_before_anything_is_copied(intake: IntakeFixture) -> None:
    intake.limits = Limits(min_free_bytes=2**60)
    intake.restart()
    intake.upload()
    intake.settle()
    assert "MB are free" in (intake.ledger.note(NOTE) or "")
    intake.limits = Limits(min_free_bytes=0)
    intake.restart()
    intake.settle()
    assert intake.job().status is Status.QUEUED


def test_inputs_removed_and_made_again(intake: IntakeFixture) -> None:
    intake.upload("old", files={"outfit.yaml": MANIFEST})
    intake.step()
    shutil.rmtree(intake.inputs)
    intake.step(2.0)
    assert not intake.inputs.exists(), "a mount point that is gone is not filled"
    intake.inputs.mkdir()
    intake.upload()
    intake.settle()
    assert intake.job().status is Status.QUEUED
    assert [job.id for job in intake.ledger.jobs()] == ["spring"]


def test_an_upload_that_trips_us_stops_nobody(intake: IntakeFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    intake.upload("a")
    intake.upload("b")
    inspect = intake.decoder.inspect

    def trip(
        folder: Path, names: Sequence[str], on_picture: Callable[[], None], proven: Collection[str]
    ) -> Mapping[str, object]:
        if "/a/" in str(folder):
            raise KeyError("surprise")
        return inspect(folder, names, on_picture, proven)

    monkeypatch.setattr(intake.decoder, "inspect", trip)
    intake.settle()
    assert intake.job("b").status is Status.QUEUED
    assert intake.said("a").startswith("invalid: it could not be examined (KeyError('surprise'))")


KILLS = (
    "ledger.sight.before:2",
    "ledger.mark.after:3",
    "spool.copy:5",
    "spool.copied:2",
    "ledger.begin_claim.after:1",
    "spool.rename.before:2",
    "spool.rename.sync:3",
    "spool.placeholder.after:1",
    "ledger.finish_claim.before:2",
    "ledger.finish_claim.after:3",
)


def test_one_kill_after_the_other_loses_and_doubles_no_upload(intake: IntakeFixture) -> None:
    intake.close()
    count = 0
    for kill in KILLS:
        for _ in range(3):
            intake.upload(f"job{count}", {**FILES, "anna.jpg": picture(count)})
            count += 1
        done = subprocess.run(
            [sys.executable, "-c", RUN_PROGRAM, str(intake.inputs), str(Path(__file__).parents[1])],
            env={**os.environ, VARIABLE: kill},
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, f"{kill} was reached"
    intake.open()
    intake.settle()
    jobs = intake.ledger.jobs()
    assert sorted(job.id for job in jobs) == sorted(f"job{number}" for number in range(count))
    assert {job.status for job in jobs} == {Status.QUEUED}
    for number in range(count):
        assert (intake.spool.paths.snapshot(f"job{number}") / "anna.jpg").read_bytes() == picture(number)
        assert list((intake.inputs / f"job{number}").iterdir()) == []


def test_the_running_loop_registers_within_two_seconds_and_claims_a_slow_upload(tmp_path: Path) -> None:
    watch = WatchSettings(settle_s=1.0, scan_s=0.5, quiet_scan_s=30.0)
    intake = IntakeFixture(tmp_path / "inputs", watch, events="auto")
    intake.inputs.mkdir()
    intake.open()
    changed: list[Job] = []
    thread = IntakeThread(intake.config, intake.ledger, intake.claimer, changed.append)
    thread.start()
    try:
        wait_until(thread.has_judged_all)
        began_s = time.monotonic()
        folder = intake.upload(files={"outfit.yaml": MANIFEST, "shirt.jpg": FILES["shirt.jpg"]})
        wait_until(lambda: changed)
        assert time.monotonic() - began_s < 2.0
        with (folder / "anna.jpg").open("wb", buffering=0) as file:
            data = FILES["anna.jpg"]
            for start in range(0, len(data), len(data) // 8):
                file.write(data[start : start + len(data) // 8])
                time.sleep(0.3)
                assert intake.job().status is Status.WAITING
        wait_until(lambda: intake.job().status is not Status.WAITING)
        assert intake.job().status is Status.QUEUED
        assert (intake.spool.paths.snapshot("spring") / "anna.jpg").read_bytes() == data
    finally:
        thread.stop(PATIENCE_S)
        intake.close()


def test_uploads_that_come_together_are_all_taken(intake: IntakeFixture) -> None:
    for number in range(30):
        intake.upload(f"job{number}")
    intake.settle()
    assert len(intake.ledger.jobs([Status.QUEUED])) == 30
    assert {path.name for path in intake.inputs.iterdir() if any(path.iterdir())} == {".spool"}
