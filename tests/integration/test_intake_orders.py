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
def desk(tmp_path: Path) -> Iterator[IntakeFixture]:
    with IntakeFixture.at(tmp_path / "inputs") as desk:
        yield desk


def test_a_retry_file_starts_a_failed_job_again(desk: IntakeFixture) -> None:
    folder = desk.upload()
    desk.settle()
    (record,) = desk.ledger.looks("spring")
    desk.ledger.start_attempt("spring", record.look.key, desk.now_s)
    desk.ledger.fail_look("spring", record.look.key, "the engine died three times", desk.now_s)
    desk.ledger.settle_job("spring", desk.now_s)
    desk.step()
    (folder / "RETRY").touch()
    desk.step()
    assert desk.job().status is Status.QUEUED
    assert not (folder / "RETRY").exists() and folder.is_dir()
    assert desk.told[-1][1] is Status.QUEUED


def test_a_cancel_file_stops_a_claimed_job(desk: IntakeFixture) -> None:
    folder = desk.upload()
    desk.settle()
    (folder / "CANCEL").touch()
    desk.step()
    assert desk.said().startswith("cancelled: cancelled by request")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("order", ["CANCEL", "RETRY"])
def test_an_order_for_a_job_that_is_done_leaves_no_phantom(desk: IntakeFixture, order: str) -> None:
    """It comes between the last picture and the scan that would take the empty folder back."""
    folder = desk.upload()
    desk.settle()
    desk.step()
    desk.finish()
    (folder / order).touch()
    for _ in range(3):
        desk.step(2.0)
    assert not folder.exists()
    assert [(job.id, job.status) for job in desk.ledger.jobs()] == [("spring", Status.DONE)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_full_disk_while_such_an_order_is_obeyed_leaves_no_phantom_either(
    desk: IntakeFixture, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = desk.upload()
    desk.settle()
    desk.step()
    desk.finish()
    (folder / "CANCEL").touch()
    monkeypatch.setenv(VARIABLE, f"ledger.take_placeholder.{moment}:1:ENOSPC")
    desk.step(2.0)
    assert (folder / "CANCEL").exists() and (desk.ledger.note(NOTE) or "").startswith("paused")
    monkeypatch.delenv(VARIABLE)
    desk.restart()
    for _ in range(3):
        desk.step(2.0)
    assert not folder.exists()
    assert [(job.id, job.status) for job in desk.ledger.jobs()] == [("spring", Status.DONE)]


def test_an_upload_that_begins_with_an_order_is_not_taken_for_an_empty_folder(desk: IntakeFixture) -> None:
    desk.upload()
    desk.settle()
    desk.finish()
    desk.step()
    desk.upload(files={"RETRY": b""})
    desk.step(2.0)
    desk.upload(files=FILES)
    desk.settle()
    assert desk.job("spring-2").status is Status.QUEUED


def test_a_cancelled_upload_rests_until_retry(desk: IntakeFixture) -> None:
    folder = desk.upload()
    (folder / "CANCEL").touch()
    desk.settle()
    assert desk.said() == "cancelled: cancelled by request"
    (folder / "RETRY").touch()
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_commands_of_another_process_are_noticed(desk: IntakeFixture) -> None:
    desk.upload(files={**FILES, "anna.jpg": b"<html>"})
    desk.settle()
    with closing(Ledger(desk.spool.ledger_path)) as other:
        other.cancel("spring", desk.now_s)
        desk.step(2.0)
        assert desk.job().status is Status.CANCELLED
        other.retry("spring", desk.now_s)
    desk.step(2.0)
    assert desk.job().status is Status.INVALID, "it was examined again"


def test_the_empty_folder_goes_when_the_job_is_done(desk: IntakeFixture) -> None:
    folder = desk.upload()
    desk.settle()
    desk.step()
    assert folder.is_dir()
    desk.finish()
    desk.step()
    assert not folder.exists()
    folder.mkdir()
    desk.step()
    assert desk.said("spring-2") == "waiting: no outfit.yaml yet", "a new folder is a new upload"


def test_a_job_done_before_the_next_scan_leaves_no_phantom(desk: IntakeFixture) -> None:
    folder = desk.upload()
    desk.settle()
    desk.finish()
    desk.step()
    assert not folder.exists() and len(desk.ledger.jobs()) == 1


def test_a_job_done_while_the_daemon_restarted_leaves_no_phantom(desk: IntakeFixture) -> None:
    folder = desk.upload()
    desk.settle()
    desk.finish()
    desk.restart()
    desk.step()
    assert not folder.exists() and len(desk.ledger.jobs()) == 1


def test_the_same_name_again_is_another_job(desk: IntakeFixture) -> None:
    desk.upload()
    desk.settle()
    desk.upload()
    desk.settle()
    assert desk.job("spring-2").status is Status.QUEUED
    desk.finish()
    desk.upload(files={**FILES, "anna.jpg": picture(5)})
    desk.settle()
    assert desk.job("spring-3").status is Status.QUEUED
    assert (desk.spool.snapshot_folder("spring-3") / "anna.jpg").read_bytes() == picture(5)
    assert (desk.spool.snapshot_folder("spring") / "anna.jpg").read_bytes() == FILES["anna.jpg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file nobody may move")
def test_a_copied_upload_is_taken_once_and_again_after_a_change(desk: IntakeFixture) -> None:
    folder = desk.upload()
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable flag")
    try:
        desk.settle()
        assert desk.job().status is Status.QUEUED
        desk.restart()
        desk.settle()
        assert len(desk.ledger.jobs()) == 1
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
    (folder / "anna.jpg").write_bytes(picture(5))
    desk.settle()
    assert desk.job("spring-2").status is Status.QUEUED


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file nobody may move")
def test_an_order_that_cannot_be_removed_is_obeyed_once(desk: IntakeFixture) -> None:
    folder = desk.upload()
    (folder / "CANCEL").touch()
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable flag")
    try:
        desk.settle()
        assert desk.job().status is Status.CANCELLED
        desk.ledger.retry("spring", desk.now_s)
        desk.restart()
        desk.settle()
        assert desk.job().status is Status.QUEUED
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
