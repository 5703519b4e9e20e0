"""What becomes of every look, of its job, and what people are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_worker import DispatcherFixture

from fastfit_watch.domain.job import LookStatus, Status
from fastfit_watch.domain.worker_protocol import SAVING, FailureKind, LookStep
from fastfit_watch.reporting import report


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[DispatcherFixture]:
    stage = DispatcherFixture(tmp_path)
    yield stage
    stage.close()


def test_a_job_is_made_two_looks_at_a_time(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b", "c")
    stage.step()
    assert stage.in_hand() == ["a", "b"]
    assert (stage.look("a").status, stage.look("a").attempts) == (LookStatus.RUNNING, 1)
    order = stage.engine.orders["a"]
    assert order.person == stage.spool.paths.snapshot("spring") / "anna.jpg"
    assert order.output == stage.config.outputs / "spring" / "anna.a.png"
    stage.step(stage.engine.makes("a"))
    assert stage.in_hand() == ["b", "c"]
    stage.step(stage.engine.makes("b"))
    stage.step(stage.engine.makes("c"))
    assert stage.job_status() is Status.DONE
    assert stage.dispatch.is_idle


def test_a_look_that_is_only_saved_keeps_no_other_from_being_prepared(stage: DispatcherFixture) -> None:
    stage.claim("spring", *"abcdef")

    def saves(name: str) -> None:
        stage.step(stage.engine.says(LookStep(stage.engine.orders[name].token, SAVING, 0, 30)))

    stage.step()
    saves("a")
    assert stage.in_hand() == ["a", "b", "c"]
    assert stage.look("c").attempts == 1, "written down before the engine is asked"
    saves("b")
    assert stage.in_hand() == ["a", "b", "c", "d"]
    saves("c")
    assert stage.in_hand() == ["a", "b", "c", "d"], "a disk that is slower than the engine is not given ever more"
    stage.step(stage.engine.makes("a"))
    assert stage.in_hand() == ["b", "c", "d", "e"]


def test_every_engine_gets_a_look_before_any_gets_a_second(tmp_path: Path) -> None:
    stage = DispatcherFixture(tmp_path, "cuda:0", "cuda:1")
    stage.claim("spring", "a", "b", "c")
    stage.step()
    assert (stage.in_hand("cuda:0"), stage.in_hand("cuda:1")) == (["a", "c"], ["b"])
    stage.close()


def test_a_picture_that_is_not_the_one_that_was_made_is_made_again(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    done = stage.engine.makes("a")
    (stage.config.outputs / "spring" / "anna.a.png").write_bytes(b"something else")
    stage.step(done)
    assert stage.look("a").status is LookStatus.QUEUED
    stage.step(after_s=11)
    stage.step(stage.engine.makes("a"))
    assert stage.job_status() is Status.DONE


def test_bad_input_fails_the_look_and_the_batch_goes_on(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.step(stage.engine.fails("a", FailureKind.INPUT))
    stage.step(stage.engine.makes("b"))
    assert (stage.look("a").status, stage.look("a").reason) == (LookStatus.FAILED, "it went wrong")
    assert stage.look("b").status is LookStatus.DONE
    assert stage.job_status() is Status.FAILED


@pytest.mark.parametrize("kind", [FailureKind.ENGINE, FailureKind.MEMORY])
def test_other_failures_are_tried_again_after_a_pause(stage: DispatcherFixture, kind: FailureKind) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.step(stage.engine.fails("a", kind))
    assert stage.in_hand() == []
    stage.step(after_s=8)
    assert stage.in_hand() == []
    stage.step(after_s=2)
    assert stage.in_hand() == ["a"]
    stage.step(stage.engine.fails("a", kind))
    assert stage.look("a").reason == "it went wrong (tried 2 times)"
    assert stage.job_status() is Status.FAILED


def test_stopping_gently_finishes_one_look_and_gives_the_other_back(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b", "c")
    stage.step()
    stage.dispatch.request_stop()
    stage.step()
    assert not stage.dispatch.is_idle
    stage.step(stage.engine.makes("a"))
    assert stage.dispatch.is_idle
    assert stage.look("a").status is LookStatus.DONE
    assert [(stage.look(name).status, stage.look(name).attempts) for name in "bc"] == [(LookStatus.QUEUED, 0)] * 2


def test_stopping_now_gives_everything_back(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.dispatch.stop_now(stage.now_s)
    assert [(stage.look(name).status, stage.look(name).deaths) for name in "ab"] == [(LookStatus.QUEUED, 0)] * 2


def test_a_cancelled_job_ends_with_the_look_in_hand(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b", "c")
    stage.step()
    stage.ledger.requests.cancel("spring", stage.now_s)
    stage.step(stage.engine.makes("a"))
    stage.step(stage.engine.dies())
    assert stage.job_status() is Status.CANCELLED
    assert {name: stage.look(name).status.value for name in "abc"} == {"a": "done", "b": "cancelled", "c": "cancelled"}


def test_people_are_told_the_time_left_and_the_end(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b")
    stage.claim("summer", "x")
    stage.publisher.start()
    stage.step()
    stage.step(stage.engine.makes("a"), after_s=6.0)
    token = stage.engine.orders["x"].token
    stage.step(stage.engine.says(LookStep(token, "denoise", 15, 30)))
    stage.publisher.stop()
    assert (stage.config.outputs / "spring" / "status.txt").read_text().startswith("running: 1 of 2")
    # 6 s for a look of 30 steps; half of `x` is left, and `b` takes turns with it
    assert (stage.config.outputs / "summer" / "status.txt").read_text() == "running: 0 of 1, about 6 s left\n"
    stage.step(stage.engine.makes("x"))
    stage.publisher.stop()
    assert (stage.config.outputs / "summer" / "report.json").is_file()
    assert stage.ledger.unreported() == []
    assert "summer" in (stage.config.outputs / "index.html").read_text()


def test_one_job_that_cannot_be_told_of_silences_no_other(stage: DispatcherFixture) -> None:
    stage.claim("autumn", "a")
    stage.claim("spring", "a")
    (stage.config.outputs / "autumn").write_text("a file where the job's folder should be")
    stage.step()
    assert "cannot be made" in stage.look("a", "autumn").reason
    stage.step()
    stage.step(stage.engine.makes("a"))
    stage.publisher.stop()
    assert (stage.config.outputs / "spring" / report.REPORT_FILE).exists()
    assert [job.id for job in stage.ledger.unreported()] == ["autumn"]


def test_a_retry_takes_the_old_report_back(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.step(stage.engine.fails("a", FailureKind.INPUT))
    stage.publisher.stop()
    path = stage.config.outputs / "spring" / report.REPORT_FILE
    assert path.exists()
    stage.ledger.requests.retry("spring", stage.now_s)
    stage.publisher.stop()
    assert not path.exists()
