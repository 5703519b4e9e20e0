"""Who is blamed when an engine process ends, and what of its work counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from loguru import logger
from support.fake_worker import PICTURE, DispatcherFixture

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import LookStatus
from fastfit_watch.domain.worker_protocol import SAVING, FailureKind, LookStep, WorkerExit


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[DispatcherFixture]:
    stage = DispatcherFixture(tmp_path)
    yield stage
    stage.close()


def test_only_the_look_that_was_worked_on_is_blamed_for_a_death(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.step(stage.engine.begins("a"), stage.engine.begins("b"))
    stage.step(stage.engine.dies(), after_s=400)
    assert (stage.look("a").deaths, stage.look("a").attempts) == (1, 1)
    assert (stage.look("b").deaths, stage.look("b").attempts) == (0, 0)


def test_suspects_are_tried_alone_so_that_the_guilty_one_is_found(stage: DispatcherFixture) -> None:
    """`b` brings the engine down while it is prepared, beside the innocent `a`."""
    stage.claim("spring", "a", "b", "c")
    stage.step()
    assert stage.in_hand() == ["a", "b"]
    stage.step(stage.engine.begins("a"), stage.engine.begins("b"), stage.engine.dies())
    stage.step(after_s=400)
    assert stage.in_hand() == ["a"]
    stage.step(stage.engine.makes("a"))
    for _ in range(3):
        stage.step(after_s=400)
        assert stage.in_hand() == ["b"]
        stage.step(stage.engine.begins("b"), stage.engine.dies())
    stage.step(after_s=400)
    stage.step(stage.engine.makes("c"))
    assert {name: stage.look(name).status.value for name in "abc"} == {"a": "done", "b": "failed", "c": "done"}
    assert stage.look("b").reason.startswith("it took the engine down three times")


def test_a_look_handed_to_a_process_that_is_just_dying_is_not_to_blame(stage: DispatcherFixture) -> None:
    """Its process died of something else before it began: no death is counted, yet it is not tried for ever."""
    stage.claim("spring", "a", "b")
    stage.step()
    stage.step(stage.engine.dies())
    assert (stage.look("a").deaths, stage.look("b").deaths) == (0, 0)
    assert (stage.look("a").attempts, stage.look("b").attempts) == (1, 0)
    stage.step(after_s=400)
    assert stage.in_hand() == ["a"]
    stage.step(stage.engine.dies())
    assert stage.look("a").status is LookStatus.FAILED
    assert "(tried 2 times)" in stage.look("a").reason


def test_a_look_being_saved_is_not_blamed_for_the_death_of_the_next(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    saving = stage.engine.says(LookStep(stage.engine.orders["a"].token, SAVING, 0, 30))
    stage.step(stage.engine.begins("a"), saving, stage.engine.begins("b"), stage.engine.dies())
    assert (stage.look("a").deaths, stage.look("b").deaths) == (0, 1)


@pytest.mark.parametrize("begun", [True, False], ids=["in work", "not known to have begun"])
def test_a_picture_whose_process_died_before_it_could_say_so_is_not_made_again(
    stage: DispatcherFixture, begun: bool
) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.engine.makes("a")  # and says nothing
    stage.step(*([stage.engine.begins("a")] if begun else []), stage.engine.dies())
    assert stage.look("a").status is LookStatus.DONE
    assert (stage.look("a").attempts, stage.look("a").deaths, stage.look("b").deaths) == (1, 0, 0)
    stage.step(after_s=400)
    assert stage.in_hand() == ["b"]


def test_a_picture_that_was_finished_when_the_daemon_stopped_is_not_made_again(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.engine.makes("a")
    stage.dispatch.stop_now(stage.now_s)
    assert stage.look("a").status is LookStatus.DONE


def test_a_death_is_logged_once_however_long_the_disk_is_full(
    stage: DispatcherFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    stage.claim("spring", "a")
    stage.step()
    with monkeypatch.context() as full:
        full.setattr(stage.ledger, "put_back", Mock(side_effect=StorageError("The disk is full.")))
        stage.step(stage.engine.begins("a"), stage.engine.dies())
        for _ in range(5):
            stage.step()
    stage.step(after_s=60)
    logger.remove(sink)
    assert sum("ended while making it" in line for line in lines) == 1
    assert stage.look("a").deaths == 1


def test_half_a_picture_of_a_process_that_died_is_made_again(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.engine.makes("a")
    stage.engine.orders["a"].output.write_bytes(PICTURE[:-1])
    stage.step(stage.engine.begins("a"), stage.engine.dies())
    assert (stage.look("a").status, stage.look("a").deaths) == (LookStatus.QUEUED, 1)


def test_an_engine_that_has_outgrown_its_memory_is_renewed_at_once(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b", "c")
    stage.step()
    done = stage.engine.makes("a")
    stage.step(done, stage.engine.begins("b"), stage.engine.dies(WorkerExit.OUTGROWN))
    stage.step()
    assert stage.in_hand() == ["b", "c"], "without a pause, and nobody is tried alone"
    assert [(stage.look(name).deaths, stage.look(name).attempts) for name in "bc"] == [(0, 1)] * 2


def test_a_look_that_takes_the_daemon_down_is_not_tried_for_ever(tmp_path: Path) -> None:
    """Its attempts are counted before the engine is asked, so they count though nobody was left to write them down."""
    for attempt in (1, 2, 3):
        stage = DispatcherFixture(tmp_path)
        if attempt == 1:
            stage.claim("spring", "a", "b")
        stage.step()
        assert stage.in_hand() == (["a", "b"] if attempt == 1 else ["a"]), "after a restart each is tried alone"
        assert stage.look("a").attempts == attempt
        stage.close()
    stage = DispatcherFixture(tmp_path)
    stage.step()
    assert stage.look("a").status is LookStatus.FAILED
    assert stage.look("a").reason == "the daemon ended while making it (tried 3 times)"
    assert stage.in_hand() == ["b"]
    stage.step(stage.engine.makes("b"))
    assert stage.look("b").status is LookStatus.DONE
    stage.close()


def test_a_device_that_is_unusable_is_no_ones_fault(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.step(stage.engine.fails("a", FailureKind.ENGINE), stage.engine.dies(WorkerExit.DEVICE_UNUSABLE))
    assert [stage.look(name).deaths for name in "ab"] == [0, 0]
    assert (stage.look("a").attempts, stage.look("b").attempts) == (1, 0)
