"""What becomes of every look, on a real ledger and real folders. Only the engine process is played by the test."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import queue
import stat
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import pytest
from loguru import logger
from PIL import Image

from fastfit_watch import report
from fastfit_watch.announce import Announcer
from fastfit_watch.config import Config, Engine
from fastfit_watch.dispatch import Dispatch
from fastfit_watch.errors import StorageError
from fastfit_watch.failpoints import VARIABLE
from fastfit_watch.images import encode_image
from fastfit_watch.job import LookRecord, LookResult, LookStatus, Status
from fastfit_watch.ledger import Ledger
from fastfit_watch.limits import Limits
from fastfit_watch.look import Category, ImageFormat, Look, SamplingOptions
from fastfit_watch.protocol import SAVING, Done, Failed, FailureKind, Message, Order, Ready, Step, WorkerExit
from fastfit_watch.resident import Ended, Event, Resident, ResidentState, Said
from fastfit_watch.spool import Spool
from fastfit_watch.write import write_json

PICTURE = encode_image(Image.new("RGB", (48, 64)), ImageFormat.PNG, {})
SIGSEGV = -11


class Played(Resident):
    """An engine process played by the test: it is ready at once, and keeps its orders for the test to answer."""

    def __init__(self, device: str) -> None:
        super().__init__(device, [], Engine(), queue.SimpleQueue())
        self.orders: dict[str, Order] = {}

    def start(self, clock_s: float) -> None:
        if self.state is ResidentState.OFF and clock_s >= self._not_before_s:
            self._life += 1
            self.hear(Ready(self.device, "played", 0.0, {}), clock_s)

    def send(self, record: LookRecord, order: Order, clock_s: float) -> None:
        super().send(record, order, clock_s)
        self.orders[record.look.name] = order

    def kill(self) -> None:
        self.orders.clear()

    def says(self, message: Message) -> Said:
        return Said(self.device, self._life, message)

    def makes(self, name: str) -> Said:
        """Make a look's picture, as the worker does: the receipt first."""
        order = self.orders[name]
        result = LookResult(order.output.name, hashlib.sha256(PICTURE).hexdigest(), 4, 3, {"denoise": 2.0}, None, "cpu")
        write_json(order.receipt, asdict(result))
        order.output.write_bytes(PICTURE)
        return self.says(Done(order.token, result))

    def fails(self, name: str, kind: FailureKind) -> Said:
        return self.says(Failed(self.orders[name].token, kind, "it went wrong"))

    def begins(self, name: str) -> Said:
        return self.says(Step(self.orders[name].token, "prepare", 0, 30))

    def dies(self, exit_code: int = SIGSEGV) -> Ended:
        return Ended(self.device, self._life, exit_code)


class Stage:
    """A dispatch with its ledger, its played engines and a clock that the test moves."""

    def __init__(self, root: Path, *devices: str) -> None:
        engine = Engine(max_attempts=2, backoff_s=10, max_deaths=3)
        self.config = Config(
            inputs=root / "inputs", outputs=root / "outputs", engine=engine, limits=Limits(min_free_bytes=0)
        )
        self.config.outputs.mkdir(exist_ok=True)
        self.spool = Spool(self.config)
        self.spool.lock()
        self.ledger = Ledger(self.spool.ledger_path)
        self.engines = {device: Played(device) for device in devices or ("cpu",)}
        self.announcer = Announcer(self.config, self.ledger, len(self.engines))
        self.dispatch = Dispatch(self.config, self.ledger, self.spool, list(self.engines.values()), self.announcer)
        self.now_s = 1000.0

    @property
    def engine(self) -> Played:
        return next(iter(self.engines.values()))

    def claim(self, name: str, *looks: str) -> None:
        self.ledger.sight(name, self.now_s)
        wanted = [Look("anna.jpg", look, {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=7)) for look in looks]
        self.ledger.begin_claim(name, "outfit.yaml", wanted, {}, "origin", self.now_s)
        self.ledger.finish_claim(name, self.now_s)
        for folder in (self.spool.snapshot_folder(name), self.spool.receipts_folder(name)):
            folder.mkdir(parents=True)

    def step(self, *events: Event, after_s: float = 1.0) -> None:
        self.now_s += after_s
        self.dispatch.step(events, self.now_s, self.now_s)

    def look(self, name: str, job: str = "spring") -> LookRecord:
        return next(record for record in self.ledger.looks(job) if record.look.name == name)

    def job_status(self, name: str = "spring") -> Status:
        job = self.ledger.job(name)
        assert job is not None
        return job.status

    def in_hand(self, device: str = "cpu") -> list[str]:
        return [record.look.name for record in self.engines[device].in_hand.values()]

    def close(self) -> None:
        self.ledger.close()
        self.spool.unlock()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def test_a_job_is_made_two_looks_at_a_time(stage: Stage) -> None:
    stage.claim("spring", "a", "b", "c")
    stage.step()
    assert stage.in_hand() == ["a", "b"]
    assert (stage.look("a").status, stage.look("a").attempts) == (LookStatus.RUNNING, 1)
    order = stage.engine.orders["a"]
    assert order.person == stage.spool.snapshot_folder("spring") / "anna.jpg"
    assert order.output == stage.config.outputs / "spring" / "anna.a.png"
    stage.step(stage.engine.makes("a"))
    assert stage.in_hand() == ["b", "c"]
    stage.step(stage.engine.makes("b"))
    stage.step(stage.engine.makes("c"))
    assert stage.job_status() is Status.DONE
    assert stage.dispatch.is_idle


def test_every_engine_gets_a_look_before_any_gets_a_second(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "cuda:0", "cuda:1")
    stage.claim("spring", "a", "b", "c")
    stage.step()
    assert (stage.in_hand("cuda:0"), stage.in_hand("cuda:1")) == (["a", "c"], ["b"])
    stage.close()


def test_a_picture_that_is_not_the_one_that_was_made_is_made_again(stage: Stage) -> None:
    stage.claim("spring", "a")
    stage.step()
    done = stage.engine.makes("a")
    (stage.config.outputs / "spring" / "anna.a.png").write_bytes(b"something else")
    stage.step(done)
    assert stage.look("a").status is LookStatus.QUEUED
    stage.step(after_s=11)
    stage.step(stage.engine.makes("a"))
    assert stage.job_status() is Status.DONE


def test_bad_input_fails_the_look_and_the_batch_goes_on(stage: Stage) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.step(stage.engine.fails("a", FailureKind.INPUT))
    stage.step(stage.engine.makes("b"))
    assert (stage.look("a").status, stage.look("a").reason) == (LookStatus.FAILED, "it went wrong")
    assert stage.look("b").status is LookStatus.DONE
    assert stage.job_status() is Status.FAILED


@pytest.mark.parametrize("kind", [FailureKind.ENGINE, FailureKind.MEMORY])
def test_other_failures_are_tried_again_after_a_pause(stage: Stage, kind: FailureKind) -> None:
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


def test_only_the_look_that_was_worked_on_is_blamed_for_a_death(stage: Stage) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.step(stage.engine.begins("a"), stage.engine.begins("b"))
    stage.step(stage.engine.dies(), after_s=400)
    assert (stage.look("a").deaths, stage.look("a").attempts) == (1, 1)
    assert (stage.look("b").deaths, stage.look("b").attempts) == (0, 0)


def test_suspects_are_tried_alone_so_that_the_guilty_one_is_found(stage: Stage) -> None:
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


def test_a_look_handed_to_a_process_that_is_just_dying_is_not_to_blame(stage: Stage) -> None:
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


def test_a_look_being_saved_is_not_blamed_for_the_death_of_the_next(stage: Stage) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    saving = stage.engine.says(Step(stage.engine.orders["a"].token, SAVING, 0, 30))
    stage.step(stage.engine.begins("a"), saving, stage.engine.begins("b"), stage.engine.dies())
    assert (stage.look("a").deaths, stage.look("b").deaths) == (0, 1)


@pytest.mark.parametrize("begun", [True, False], ids=["in work", "not known to have begun"])
def test_a_picture_whose_process_died_before_it_could_say_so_is_not_made_again(stage: Stage, begun: bool) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.engine.makes("a")  # and says nothing
    stage.step(*([stage.engine.begins("a")] if begun else []), stage.engine.dies())
    assert stage.look("a").status is LookStatus.DONE
    assert (stage.look("a").attempts, stage.look("a").deaths, stage.look("b").deaths) == (1, 0, 0)
    stage.step(after_s=400)
    assert stage.in_hand() == ["b"]


def test_a_picture_that_was_finished_when_the_daemon_stopped_is_not_made_again(stage: Stage) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.engine.makes("a")
    stage.dispatch.stop_now(stage.now_s)
    assert stage.look("a").status is LookStatus.DONE


def test_a_death_is_logged_once_however_long_the_disk_is_full(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_half_a_picture_of_a_process_that_died_is_made_again(stage: Stage) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.engine.makes("a")
    stage.engine.orders["a"].output.write_bytes(PICTURE[:-1])
    stage.step(stage.engine.begins("a"), stage.engine.dies())
    assert (stage.look("a").status, stage.look("a").deaths) == (LookStatus.QUEUED, 1)


def test_an_engine_that_has_outgrown_its_memory_is_renewed_at_once(stage: Stage) -> None:
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
        stage = Stage(tmp_path)
        if attempt == 1:
            stage.claim("spring", "a", "b")
        stage.step()
        assert stage.in_hand() == (["a", "b"] if attempt == 1 else ["a"]), "after a restart each is tried alone"
        assert stage.look("a").attempts == attempt
        stage.close()
    stage = Stage(tmp_path)
    stage.step()
    assert stage.look("a").status is LookStatus.FAILED
    assert stage.look("a").reason == "the daemon ended while making it (tried 3 times)"
    assert stage.in_hand() == ["b"]
    stage.step(stage.engine.makes("b"))
    assert stage.look("b").status is LookStatus.DONE
    stage.close()


def test_a_device_that_is_unusable_is_no_ones_fault(stage: Stage) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.step(stage.engine.fails("a", FailureKind.ENGINE), stage.engine.dies(WorkerExit.DEVICE_UNUSABLE))
    assert [stage.look(name).deaths for name in "ab"] == [0, 0]
    assert (stage.look("a").attempts, stage.look("b").attempts) == (1, 0)


def test_a_storage_failure_holds_the_queue_until_the_disk_is_well(stage: Stage) -> None:
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
    stage = Stage(tmp_path)
    stage.claim("spring", "a")
    stage.dispatch.config = stage.config.model_copy(update={"limits": Limits(min_free_bytes=10**18)})
    stage.step()
    assert "MB are free" in stage.dispatch.held
    assert stage.look("a").attempts == 0
    stage.dispatch.config = stage.config
    stage.step(after_s=5)
    assert stage.in_hand() == ["a"]
    stage.close()


def test_a_result_that_cannot_be_recorded_is_recorded_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
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
    before = Stage(tmp_path)
    before.claim("spring", "a", "b", "c", "d")
    before.step()
    before.engine.makes("a")
    before.engine.makes("b")
    (before.config.outputs / "spring" / "anna.b.png").write_bytes(b"torn")
    (before.config.outputs / "spring" / ".tmp-1-anna.c.png").write_bytes(b"torn")
    before.close()
    after = Stage(tmp_path)
    after.announcer.start()
    after.step()
    after.announcer.finish()
    assert after.look("a").status is LookStatus.DONE
    assert after.in_hand() == ["b"]
    assert after.look("b").attempts == 2
    assert not list((after.config.outputs / "spring").glob(".tmp-*"))
    after.close()


def test_recovery_settles_a_job_whose_last_look_was_just_finished(tmp_path: Path) -> None:
    before = Stage(tmp_path)
    before.claim("spring", "a")
    before.step()
    before.engine.makes("a")
    before.close()
    after = Stage(tmp_path)
    after.step()
    assert after.job_status() is Status.DONE
    after.close()


def test_stopping_gently_finishes_one_look_and_gives_the_other_back(stage: Stage) -> None:
    stage.claim("spring", "a", "b", "c")
    stage.step()
    stage.dispatch.stop_gently()
    stage.step()
    assert not stage.dispatch.is_idle
    stage.step(stage.engine.makes("a"))
    assert stage.dispatch.is_idle
    assert stage.look("a").status is LookStatus.DONE
    assert [(stage.look(name).status, stage.look(name).attempts) for name in "bc"] == [(LookStatus.QUEUED, 0)] * 2


def test_stopping_now_gives_everything_back(stage: Stage) -> None:
    stage.claim("spring", "a", "b")
    stage.step()
    stage.dispatch.stop_now(stage.now_s)
    assert [(stage.look(name).status, stage.look(name).deaths) for name in "ab"] == [(LookStatus.QUEUED, 0)] * 2


def test_a_cancelled_job_ends_with_the_look_in_hand(stage: Stage) -> None:
    stage.claim("spring", "a", "b", "c")
    stage.step()
    stage.ledger.cancel("spring", stage.now_s)
    stage.step(stage.engine.makes("a"))
    stage.step(stage.engine.dies())
    assert stage.job_status() is Status.CANCELLED
    assert {name: stage.look(name).status.value for name in "abc"} == {"a": "done", "b": "cancelled", "c": "cancelled"}


def test_people_are_told_the_time_left_and_the_end(stage: Stage) -> None:
    stage.claim("spring", "a", "b")
    stage.claim("summer", "x")
    stage.announcer.start()
    stage.step()
    stage.step(stage.engine.makes("a"), after_s=6.0)
    token = stage.engine.orders["x"].token
    stage.step(stage.engine.says(Step(token, "denoise", 15, 30)))
    stage.announcer.finish()
    assert (stage.config.outputs / "spring" / "status.txt").read_text().startswith("running: 1 of 2")
    # 6 s for a look of 30 steps; half of `x` is left, and `b` takes turns with it
    assert (stage.config.outputs / "summer" / "status.txt").read_text() == "running: 0 of 1, about 6 s left\n"
    stage.step(stage.engine.makes("x"))
    stage.announcer.finish()
    summer = stage.ledger.job("summer")
    assert summer is not None
    assert report.has_report(stage.config, summer)
    assert stage.ledger.unreported() == []
    assert "summer" in (stage.config.outputs / "index.html").read_text()


def test_one_job_that_cannot_be_told_of_silences_no_other(stage: Stage) -> None:
    stage.claim("autumn", "a")
    stage.claim("spring", "a")
    (stage.config.outputs / "autumn").write_text("a file where the job's folder should be")
    stage.step()
    assert "cannot be made" in stage.look("a", "autumn").reason
    stage.step()
    stage.step(stage.engine.makes("a"))
    stage.announcer.finish()
    assert (stage.config.outputs / "spring" / report.REPORT_FILE).exists()
    assert [job.id for job in stage.ledger.unreported()] == ["autumn"]


def test_a_retry_takes_the_old_report_back(stage: Stage) -> None:
    stage.claim("spring", "a")
    stage.step()
    stage.step(stage.engine.fails("a", FailureKind.INPUT))
    stage.announcer.finish()
    path = stage.config.outputs / "spring" / report.REPORT_FILE
    assert path.exists()
    stage.ledger.retry("spring", stage.now_s)
    stage.announcer.finish()
    assert not path.exists()


def test_storage_errors_outside_a_look_hold_the_queue_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
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
    stage, sync = Stage(tmp_path), os.fsync
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
