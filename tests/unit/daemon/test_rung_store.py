"""What dispatch learns of a device's memory, and of withheld pictures, on a real ledger. The engine is played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_worker import DispatcherFixture

from fastfit_watch.config.settings import Config, MemorySettings
from fastfit_watch.daemon.rung_store import RungNotes
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import LookProgress, LookResult, LookStatus, Status
from fastfit_watch.domain.memory_ladder import Rung, ladder
from fastfit_watch.domain.worker_protocol import FailureKind, LookWithheld, Ready, RungLowered, WorkerExit
from fastfit_watch.reporting import status_line
from fastfit_watch.storage.ledger import Ledger

NOW_S = 1_000_000.0
DAY_S = 86400.0
READY = Ready("cuda:0", "mini", 0.0, {}, "RTX 3060, 11.6 GiB")
ALL = ladder(Rung.FULL, allow_smaller=False)
LOWER = ladder(Rung.OFFLOAD, allow_smaller=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.db")
    yield ledger
    ledger.close()


@pytest.fixture
def notes(ledger: Ledger) -> RungNotes:
    notes = RungNotes(ledger)
    notes.remember(Config(), READY, "cuda:0", Rung.OFFLOAD, NOW_S)
    return notes


def test_the_rung_that_worked_is_used_by_the_next_daemon_too(notes: RungNotes, ledger: Ledger) -> None:
    ledger.close()
    assert RungNotes(Ledger(ledger.path)).rungs(Config(), READY, "cuda:0", NOW_S + 60) == LOWER
    assert notes.rungs(Config(), READY, "cuda:1", NOW_S + 60) == ALL


@pytest.mark.parametrize("after_s", [DAY_S + 1, -1.0])
def test_after_a_day_the_top_is_tried_again(notes: RungNotes, after_s: float) -> None:
    assert notes.rungs(Config(), READY, "cuda:0", NOW_S + DAY_S - 1) == LOWER
    assert notes.rungs(Config(), READY, "cuda:0", NOW_S + after_s) == ALL


@pytest.mark.parametrize(
    ("config", "ready", "rungs"),
    [
        (Config(), Ready("cuda:0", "mini", 0.0, {}, "RTX 3090, 23.6 GiB"), ALL),
        (Config(), Ready("cuda:0", "fastfit-mr-1024", 0.0, {}, READY.card), ALL),
        (Config(memory=MemorySettings(start=Rung.HALVES)), READY, ladder(Rung.HALVES, allow_smaller=False)),
        (Config(memory=MemorySettings(allow_smaller=True)), READY, ladder(Rung.OFFLOAD, allow_smaller=True)),
    ],
)
def test_another_card_bundle_or_start_begins_anew(
    notes: RungNotes, config: Config, ready: Ready, rungs: tuple[Rung, ...]
) -> None:
    assert notes.rungs(config, ready, "cuda:0", NOW_S) == rungs


def test_smaller_pictures_end_with_their_permission(notes: RungNotes) -> None:
    notes.remember(Config(), READY, "cuda:0", Rung.SMALLER, NOW_S)
    assert notes.rungs(Config(memory=MemorySettings(allow_smaller=True)), READY, "cuda:0", NOW_S) == (Rung.SMALLER,)
    assert Rung.SMALLER not in notes.rungs(Config(), READY, "cuda:0", NOW_S)


def test_a_note_that_cannot_be_read_is_none(notes: RungNotes, ledger: Ledger) -> None:
    ledger.put_note("rung cuda:0", '{"rung": "attic"}')
    assert notes.rungs(Config(), READY, "cuda:0", NOW_S) == ALL


def test_a_retry_forgets_it(notes: RungNotes, ledger: Ledger) -> None:
    with pytest.raises(ConfigError):
        ledger.requests.retry("nothing", NOW_S)
    assert notes.rungs(Config(), READY, "cuda:0", NOW_S) == LOWER
    job = ledger.find_or_create_unclaimed("spring", NOW_S)
    ledger.requests.cancel(job.id, NOW_S)
    ledger.requests.retry(job.id, NOW_S)
    assert notes.rungs(Config(), READY, "cuda:0", NOW_S) == ALL


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[DispatcherFixture]:
    stage = DispatcherFixture(tmp_path)
    yield stage
    stage.ledger.close()
    stage.spool.unlock()


def _lowered(stage: DispatcherFixture, name: str, rung: Rung) -> RungLowered:
    return RungLowered(stage.engine.orders[name].token, Rung.FULL, rung, "The device is full.")


def test_a_poisoned_device_costs_no_attempt_and_the_fresh_process_begins_lower(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    assert stage.engine.orders["a"].rungs == ALL
    said = stage.engine.says(_lowered(stage, "a", Rung.OFFLOAD))
    stage.step(said, stage.engine.dies(WorkerExit.DEVICE_UNUSABLE))
    assert (stage.look("a").status, stage.look("a").attempts) == (LookStatus.QUEUED, 0)
    stage.step(after_s=60.0)
    stage.step()
    assert stage.engine.orders["a"].rungs == LOWER
    stage.step(stage.engine.makes("a"))
    assert stage.job_status() is Status.DONE


def test_after_a_shortage_on_every_rung_the_next_attempt_begins_at_the_top(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.step(stage.engine.says(_lowered(stage, "a", Rung.TILES)), stage.engine.fails("a", FailureKind.MEMORY))
    assert stage.look("a").attempts == 1
    stage.step(after_s=60.0)
    assert stage.engine.orders["a"].rungs == ALL


def test_a_withheld_look_ends_and_its_job_is_done(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    order = stage.engine.orders["a"]
    assert order.withheld == stage.spool.paths.withheld("spring").absolute()
    stage.step(stage.engine.says(LookWithheld(order.token, "it sees x")), stage.engine.makes("b"))
    assert (stage.look("a").status, stage.look("a").reason) == (LookStatus.WITHHELD, "it sees x")
    job = stage.ledger.job("spring")
    assert job is not None
    assert (job.status, job.reason) == (Status.DONE, "1 picture made; 1 withheld: anna.a: it sees x")
    line = status_line.status_line(job, stage.ledger.looks("spring"), None, 0)
    assert line.startswith("done: 1 picture in ") and line.endswith("; withheld: anna.a: it sees x")
    with pytest.raises(ConfigError, match="done, not withheld"):
        stage.ledger.review.judge_withheld("spring", "anna.b", None, stage.now_s)


def test_what_is_withheld_is_never_kept_for_its_time_and_removed(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.step(stage.engine.says(LookWithheld(stage.engine.orders["a"].token, "it sees x")))
    assert all(stage.ledger.confirm_report(job) for job in stage.ledger.unreported())
    assert stage.ledger.retention.begin_keeping(stage.now_s, 10) == 0
    result = LookResult("anna.a.png", "0", 4, 3, {}, None, "cpu", shortages={"full": "decode"}, rung="halves")
    assert stage.ledger.review.judge_withheld("spring", "anna.a", result, stage.now_s).reason == "1 picture made"
    assert stage.look("a").result == result
    assert all(stage.ledger.confirm_report(job) for job in stage.ledger.unreported())
    assert stage.ledger.retention.begin_keeping(stage.now_s, 10) == 1


def test_the_status_line_names_the_rung(stage: DispatcherFixture) -> None:
    stage.claim("spring", "a")
    stage.step()
    job = stage.ledger.job("spring")
    assert job is not None
    progress = LookProgress("anna.a", "denoise", 1, 30, eta_s=40.0, rung="offload")
    line = status_line.status_line(job, stage.ledger.looks("spring"), progress, 0)
    assert line == "running: 0 of 1, about 40 s left, with less memory (offload)"
