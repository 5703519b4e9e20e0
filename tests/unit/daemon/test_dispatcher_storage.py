"""A disk that is full or fails, and what the next start makes of what it finds."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_worker import DispatcherFixture

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import LookStatus, Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.worker_protocol import FailureKind
from fastfit_watch.system.failpoints import VARIABLE


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[DispatcherFixture]:
    stage = DispatcherFixture(tmp_path)
    yield stage
    stage.close()


def test_a_storage_failure_holds_the_queue_until_the_disk_is_well(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.step(stage.engine.fails("a", FailureKind.STORAGE), after_s=0)
    assert stage.dispatch.held == "it went wrong"
    assert stage.in_hand() == []
    assert (stage.look("a").status, stage.look("a").attempts) == (LookStatus.QUEUED, 0)
    stage.step(after_s=2)
    assert stage.dispatch.held == ""
    assert stage.in_hand() == ["a"]
    assert not list(stage.config.outputs.glob(".tmp-*"))


def test_nothing_is_started_with_too_little_space(tmp_path: Path) -> None:
    stage = DispatcherFixture(tmp_path)
    stage.claim("spring", "a")
    stage.dispatch.adopt(stage.config.model_copy(update={"limits": Limits(min_free_bytes=10**18)}))
    stage.step()
    assert "MB are free" in stage.dispatch.held
    assert stage.look("a").attempts == 0
    stage.dispatch.adopt(stage.config)
    stage.step(after_s=5)
    assert stage.in_hand() == ["a"]
    stage.close()


def test_a_result_that_cannot_be_recorded_is_recorded_later(
    stage: DispatcherFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.claim("spring", "a")
    stage.step()
    monkeypatch.setenv(VARIABLE, "ledger.finish_look.before:1:ENOSPC")
    stage.step(stage.engine.makes("a"))
    assert stage.dispatch.held
    assert stage.look("a").status is LookStatus.RUNNING
    stage.step(after_s=60)
    assert stage.dispatch.held
    monkeypatch.delenv(VARIABLE)
    stage.step(after_s=60)
    assert stage.job_status() is Status.DONE
    assert not stage.dispatch.held


def test_recovery_keeps_whole_pictures_and_queues_the_rest(tmp_path: Path) -> None:
    before = DispatcherFixture(tmp_path)
    before.claim("spring", "a", "b", "c", "d")
    before.step()
    before.engine.makes("a")
    before.engine.makes("b")
    (before.config.outputs / "spring" / "anna.b.png").write_bytes(b"torn")
    (before.config.outputs / "spring" / ".tmp-1-anna.c.png").write_bytes(b"torn")
    before.close()
    after = DispatcherFixture(tmp_path)
    after.publisher.start()
    after.step()
    after.publisher.stop()
    assert after.look("a").status is LookStatus.DONE
    assert after.in_hand() == ["b"]
    assert after.look("b").attempts == 2
    assert not list((after.config.outputs / "spring").glob(".tmp-*"))
    after.close()


def test_recovery_settles_a_job_whose_last_look_was_just_finished(tmp_path: Path) -> None:
    before = DispatcherFixture(tmp_path)
    before.claim("spring", "a")
    before.step()
    before.engine.makes("a")
    before.close()
    after = DispatcherFixture(tmp_path)
    after.step()
    assert after.job_status() is Status.DONE
    after.close()


def test_storage_errors_outside_a_look_hold_the_queue_too(
    stage: DispatcherFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.claim("spring", "a")
    monkeypatch.setenv(VARIABLE, "ledger.start_attempt.before:1:ENOSPC")
    with pytest.raises(StorageError):
        stage.ledger.start_attempt("spring", "anna.a", 0.0)
    stage.step()
    assert stage.dispatch.held
    monkeypatch.delenv(VARIABLE)
    for _ in itertools.repeat(None, 3):
        stage.step(after_s=30)
    assert stage.in_hand() == ["a"]


def test_a_quota_used_up_at_the_results_folder_is_not_the_looks_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, sync = DispatcherFixture(tmp_path), os.fsync
    stage.claim("spring", "a")

    def refuse_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    stage.step()
    assert "quota" in stage.dispatch.held
    assert stage.look("a").status is LookStatus.QUEUED
    monkeypatch.undo()
    stage.step(after_s=120)
    assert stage.in_hand() == ["a"]
    assert not stage.dispatch.held


def test_a_receipt_and_picture_of_a_former_upload_are_never_taken_for_the_new_ones(tmp_path: Path) -> None:
    """An older ledger was restored over a newer spool; a job of the same name came, and its engine was killed."""
    former = DispatcherFixture(tmp_path)
    former.claim("spring", "a")
    former.step()
    former.engine.makes("a")
    former.close()
    for file in former.spool.paths.root.glob("ledger.db*"):
        file.unlink()
    after = DispatcherFixture(tmp_path)
    after.claim("spring", "a", seed=8)
    after.step()
    after.step(after.engine.dies())
    assert after.look("a").status is LookStatus.QUEUED
    after.close()
