"""What people ask of uploads and jobs by files, and the empty folder that a claim leaves for that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.intake_fixture import FILES, IntakeFixture, picture

from fastfit_watch.domain.job import Status
from fastfit_watch.intake.loop import NOTE
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.failpoints import VARIABLE


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[IntakeFixture]:
    with IntakeFixture.at(tmp_path / "inputs") as intake:
        yield intake


def test_a_retry_file_starts_a_failed_job_again(intake: IntakeFixture) -> None:
    folder = intake.upload()
    intake.settle()
    (record,) = intake.ledger.looks("spring")
    intake.ledger.start_attempt("spring", record.look.key, intake.now_s)
    intake.ledger.fail_look("spring", record.look.key, "the engine died three times", intake.now_s)
    intake.ledger.settle_job("spring", intake.now_s)
    intake.step()
    (folder / "RETRY").touch()
    intake.step()
    assert intake.job().status is Status.QUEUED
    assert not (folder / "RETRY").exists() and folder.is_dir()
    assert intake.told[-1][1] is Status.QUEUED


def test_a_cancel_file_stops_a_claimed_job(intake: IntakeFixture) -> None:
    folder = intake.upload()
    intake.settle()
    (folder / "CANCEL").touch()
    intake.step()
    assert intake.said().startswith("cancelled: cancelled by request")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("order", ["CANCEL", "RETRY"])
def test_an_order_for_a_job_that_is_done_leaves_no_phantom(intake: IntakeFixture, order: str) -> None:
    """It comes between the last picture and the scan that would take the empty folder back."""
    folder = intake.upload()
    intake.settle()
    intake.step()
    intake.finish()
    (folder / order).touch()
    for _ in range(3):
        intake.step(2.0)
    assert not folder.exists()
    assert [(job.id, job.status) for job in intake.ledger.jobs()] == [("spring", Status.DONE)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_full_disk_while_such_an_order_is_obeyed_leaves_no_phantom_either(
    intake: IntakeFixture, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = intake.upload()
    intake.settle()
    intake.step()
    intake.finish()
    (folder / "CANCEL").touch()
    monkeypatch.setenv(VARIABLE, f"ledger.take_placeholder.{moment}:1:ENOSPC")
    intake.step(2.0)
    assert (folder / "CANCEL").exists() and (intake.ledger.note(NOTE) or "").startswith("paused")
    monkeypatch.delenv(VARIABLE)
    intake.restart()
    for _ in range(3):
        intake.step(2.0)
    assert not folder.exists()
    assert [(job.id, job.status) for job in intake.ledger.jobs()] == [("spring", Status.DONE)]


def test_an_upload_that_begins_with_an_order_is_not_taken_for_an_empty_folder(intake: IntakeFixture) -> None:
    intake.upload()
    intake.settle()
    intake.finish()
    intake.step()
    intake.upload(files={"RETRY": b""})
    intake.step(2.0)
    intake.upload(files=FILES)
    intake.settle()
    assert intake.job("spring-2").status is Status.QUEUED


def test_a_cancelled_upload_rests_until_retry(intake: IntakeFixture) -> None:
    folder = intake.upload()
    (folder / "CANCEL").touch()
    intake.settle()
    assert intake.said() == "cancelled: cancelled by request"
    (folder / "RETRY").touch()
    intake.settle()
    assert intake.job().status is Status.QUEUED


def test_commands_of_another_process_are_noticed(intake: IntakeFixture) -> None:
    intake.upload(files={**FILES, "anna.jpg": b"<html>"})
    intake.settle()
    with closing(Ledger(intake.spool.paths.ledger)) as other:
        other.requests.cancel("spring", intake.now_s)
        intake.step(2.0)
        assert intake.job().status is Status.CANCELLED
        other.requests.retry("spring", intake.now_s)
    intake.step(2.0)
    assert intake.job().status is Status.INVALID, "it was examined again"


def test_the_empty_folder_goes_when_the_job_is_done(intake: IntakeFixture) -> None:
    folder = intake.upload()
    intake.settle()
    intake.step()
    assert folder.is_dir()
    intake.finish()
    intake.step()
    assert not folder.exists()
    folder.mkdir()
    intake.step()
    assert intake.said("spring-2") == "waiting: no outfit.yaml yet", "a new folder is a new upload"


def test_a_job_done_before_the_next_scan_leaves_no_phantom(intake: IntakeFixture) -> None:
    folder = intake.upload()
    intake.settle()
    intake.finish()
    intake.step()
    assert not folder.exists() and len(intake.ledger.jobs()) == 1


def test_a_job_done_while_the_daemon_restarted_leaves_no_phantom(intake: IntakeFixture) -> None:
    folder = intake.upload()
    intake.settle()
    intake.finish()
    intake.restart()
    intake.step()
    assert not folder.exists() and len(intake.ledger.jobs()) == 1


def test_the_same_name_again_is_another_job(intake: IntakeFixture) -> None:
    intake.upload()
    intake.settle()
    intake.upload()
    intake.settle()
    assert intake.job("spring-2").status is Status.QUEUED
    intake.finish()
    intake.upload(files={**FILES, "anna.jpg": picture(5)})
    intake.settle()
    assert intake.job("spring-3").status is Status.QUEUED
    assert (intake.spool.paths.snapshot("spring-3") / "anna.jpg").read_bytes() == picture(5)
    assert (intake.spool.paths.snapshot("spring") / "anna.jpg").read_bytes() == FILES["anna.jpg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file nobody may move")
def test_a_copied_upload_is_taken_once_and_again_after_a_change(intake: IntakeFixture) -> None:
    folder = intake.upload()
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable flag")
    try:
        intake.settle()
        assert intake.job().status is Status.QUEUED
        intake.restart()
        intake.settle()
        assert len(intake.ledger.jobs()) == 1
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
    (folder / "anna.jpg").write_bytes(picture(5))
    intake.settle()
    assert intake.job("spring-2").status is Status.QUEUED


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file nobody may move")
def test_an_order_that_cannot_be_removed_is_obeyed_once(intake: IntakeFixture) -> None:
    folder = intake.upload()
    (folder / "CANCEL").touch()
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable flag")
    try:
        intake.settle()
        assert intake.job().status is Status.CANCELLED
        intake.ledger.requests.retry("spring", intake.now_s)
        intake.restart()
        intake.settle()
        assert intake.job().status is Status.QUEUED
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
