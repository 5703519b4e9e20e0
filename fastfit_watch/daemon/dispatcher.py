"""Loop two: decides which look goes to which worker next, and passes on what becomes of it.

`now_s` is Unix time, for the ledger. `clock_s` is monotonic time, for waiting.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.daemon.disk_guard import DiskGuard
from fastfit_watch.daemon.outcomes import Outcomes, log_of
from fastfit_watch.daemon.rung_store import RungNotes
from fastfit_watch.daemon.worker_handle import WorkerHandle
from fastfit_watch.daemon.worker_process import describe_exit
from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import LookRecord
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.receipts import subject_of
from fastfit_watch.domain.worker_protocol import (
    BLAMELESS,
    SAVING,
    Event,
    FailureKind,
    LookDone,
    LookFailed,
    LookOrder,
    LookStep,
    LookWithheld,
    Message,
    RungLowered,
    WorkerExited,
    WorkerMessage,
)
from fastfit_watch.reporting.publisher import Publisher
from fastfit_watch.reporting.verification import picture_name
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import Spool
from fastfit_watch.system.atomic_write import make_folder, sync_folder

AHEAD = 2  # looks in one worker beside those that are only being saved: one in work, one prepared meanwhile
_MOST_IN_HAND = 4  # where saving takes longer than making, pictures do not pile up
_STOPPED = "the daemon was stopped"


@dataclass(frozen=True)
class AttemptInHand:
    """One attempt at a look that a worker has not answered yet.

    since_s: monotonic seconds, from which on the worker's time is spent on it. step: the newest that it reported.
    """

    record: LookRecord
    device: str
    since_s: float
    step: LookStep | None = None

    @property
    def is_begun(self) -> bool:
        """Did the worker report that it works on it?"""
        return self.step is not None

    @property
    def is_saving(self) -> bool:
        """Is the picture made, and only being saved?"""
        return self.step is not None and self.step.stage == SAVING

    def describe(self) -> str:
        """Describe it for people: `cuda:0 making spring/anna.casual, denoise 12 of 30`."""
        step = f", {self.step.stage} {self.step.step} of {self.step.steps}" if self.step is not None else ""
        return f"{self.device} making {self.record.job_id}/{self.record.look.key}{step}"


class Dispatcher:
    """Feeds the workers, and settles every look exactly once."""

    def __init__(
        self, config: Config, ledger: Ledger, spool: Spool, workers: Sequence[WorkerHandle], publisher: Publisher
    ) -> None:
        self._config, self._ledger, self._spool, self._publisher = config, ledger, spool, publisher
        self._workers: Mapping[str, WorkerHandle] = {worker.device: worker for worker in workers}
        self._rung_store = RungNotes(ledger)
        self._hold = DiskGuard((config.outputs, spool.paths.root), publisher.note_halt)
        self._outcomes = Outcomes(config, ledger, spool, self._hold.note_success)
        self._tokens = itertools.count(1)
        self._in_hand: dict[int, AttemptInHand] = {}
        self._stopping = False

    def adopt(self, config: Config) -> None:
        """Use these settings from now on."""
        self._config = self._outcomes.config = config

    def step(self, events: Sequence[Event], now_s: float, clock_s: float, *, may_start: bool = True) -> None:
        """Take one turn of the loop: handle what the workers reported, check them, write down, dispatch."""
        for event in events:
            worker = self._workers[event.device]
            if worker.knows(event):
                self._handle_event(worker, event, clock_s)
        for worker in self._workers.values():
            worker.check(clock_s)
            if may_start and not self._stopping:
                worker.start(clock_s)
        try:
            self._outcomes.write_down(now_s)
            self._hold.try_resume(self._config.limits.min_free_bytes, clock_s)
            if not self._stopping and not self.held:
                self._fill_workers(now_s, clock_s)
        except (StorageError, OSError) as error:
            self._hold.pause(str(error), clock_s)

    @property
    def held(self) -> str:
        """Why the queue stands still; empty while it goes."""
        return self._hold.reason

    @property
    def is_idle(self) -> bool:
        """Is nothing in hand, and everything written down that can be?"""
        return not self._in_hand and (bool(self.held) or self._outcomes.is_written)

    def describe_work(self) -> str:
        """Describe for people the look that each worker makes now; empty if there is none."""
        oldest = (self._attempts_of(device)[:1] for device in self._workers)
        return "; ".join(attempt.describe() for attempts in oldest for attempt in attempts)

    def request_stop(self) -> None:
        """Start nothing more. A look in hand is finished; one prepared ahead goes back to the queue."""
        self._stopping = True
        resting = [worker for worker in self._workers.values() if not self._attempts_of(worker.device)]
        for worker in resting:
            worker.request_stop()
        for worker in resting:
            worker.stop()

    def stop_now(self, now_s: float) -> None:
        """Kill the workers. Looks in hand go back to the queue, at the latest at the next start."""
        self._stopping = True
        for worker in self._workers.values():
            worker.kill()
            self._requeue_all(worker.device)
        try:
            self._outcomes.write_down(now_s)
        except (StorageError, OSError) as error:
            logger.warning("not written down, the next start does it: {}", error)

    def _attempts_of(self, device: str) -> list[AttemptInHand]:
        """The attempts that a worker has in hand, oldest first."""
        return [attempt for attempt in self._in_hand.values() if attempt.device == device]

    # What the workers report

    def _handle_event(self, worker: WorkerHandle, event: Event, clock_s: float) -> None:
        match event:
            case WorkerExited(exit_code=exit_code):
                worker.handle_exit(exit_code, clock_s)
                self._handle_exit(worker.device, exit_code)
            case WorkerMessage(message=message):
                worker.handle_message(message, clock_s)
                self._handle_message(worker, message, clock_s)

    def _handle_message(self, worker: WorkerHandle, message: Message, clock_s: float) -> None:
        match message:
            case LookStep(token=token) if token in self._in_hand:
                self._handle_step(message)
            case RungLowered(token=token, rung=rung) if token in self._in_hand:
                log_of(self._in_hand[token].record).warning(
                    "on rung '{}': {} Trying '{}'.", message.tried, message.reason, rung
                )
                learnt = (self._config, worker.ready, worker.device, rung)
                self._outcomes.append(partial(self._rung_store.remember, *learnt))
            case LookDone(token=token) | LookWithheld(token=token) | LookFailed(token=token) if token in self._in_hand:
                self._handle_end(self._in_hand.pop(token), message, clock_s)
                if self._stopping:
                    self._requeue_all(worker.device)
                    worker.stop()

    def _handle_step(self, message: LookStep) -> None:
        attempt = replace(self._in_hand[message.token], step=message)
        self._in_hand[message.token] = attempt
        if attempt is self._attempts_of(attempt.device)[0]:
            self._publisher.note_progress(attempt.record, message.stage, message.step, message.steps, message.rung)

    def _handle_end(
        self, attempt: AttemptInHand, message: LookDone | LookWithheld | LookFailed, clock_s: float
    ) -> None:
        record = attempt.record
        for token, other in self._in_hand.items():
            if other.device == attempt.device:
                self._in_hand[token] = replace(other, since_s=clock_s)
        self._outcomes.clear(record)
        match message:
            case LookDone(result=result):
                self._publisher.note_seconds(clock_s - attempt.since_s, record.look.options.steps)
                self._outcomes.finish(record, result)
            case LookWithheld(reason=reason):
                self._outcomes.withhold(record, reason)
            case LookFailed():
                self._handle_failure(attempt, message, clock_s)

    def _handle_failure(self, attempt: AttemptInHand, failure: LookFailed, clock_s: float) -> None:
        record, message = attempt.record, failure.message
        log_of(record).warning("attempt {} failed ({}): {}", record.attempts, failure.kind.value, message)
        match failure.kind:
            case FailureKind.STORAGE:
                self._outcomes.put_back(record, message)
                self._hold.pause(message, clock_s)
            case FailureKind.INPUT:
                self._outcomes.fail(record, message)
            case FailureKind.MEMORY:
                self._outcomes.append(lambda now_s: self._rung_store.forget(attempt.device))
                self._outcomes.try_again(record, message)
            case FailureKind.ENGINE:
                self._outcomes.try_again(record, message)

    def _handle_exit(self, device: str, exit_code: int) -> None:
        """Settle what a dead worker had in hand. The look it worked on is blamed, none that was prepared or saved."""
        lost = self._attempts_of(device)
        self._in_hand = {token: attempt for token, attempt in self._in_hand.items() if attempt.device != device}
        if exit_code not in BLAMELESS and lost:
            guilty = min(lost, key=lambda attempt: not attempt.is_begun or attempt.is_saving)  # the oldest of equals
            lost.remove(guilty)
            reason = f"the engine process ended while making it ({describe_exit(exit_code)})"
            # One that was sent to a process just dying is not to blame; yet none may be tried for ever.
            self._outcomes.blame_lost(guilty.record, reason, begun=guilty.is_begun)
            self._outcomes.suspect(attempt.record for attempt in (guilty, *lost))
        for attempt in lost:
            self._outcomes.requeue_lost(attempt.record, "the engine process ended before its turn")

    def _requeue_all(self, device: str) -> None:
        for attempt in self._attempts_of(device):
            self._outcomes.requeue_lost(attempt.record, _STOPPED)
        self._in_hand = {token: attempt for token, attempt in self._in_hand.items() if attempt.device != device}

    # Dispatching

    def _fill_workers(self, now_s: float, clock_s: float) -> None:
        """Give every idle worker a look first, then each one look ahead."""
        for depth in range(AHEAD):
            for worker in self._workers.values():
                attempts = self._attempts_of(worker.device)
                in_work = sum(not attempt.is_saving for attempt in attempts)
                if worker.ready is not None and in_work == depth and len(attempts) < _MOST_IN_HAND:
                    self._dispatch_next(worker, now_s, clock_s)

    def _dispatch_next(self, worker: WorkerHandle, now_s: float, clock_s: float) -> None:
        waiting = self._ledger.next_looks(now_s, 1)
        beside = [attempt.record for attempt in self._attempts_of(worker.device)]
        if not waiting or (beside and self._outcomes.must_be_alone([*beside, *waiting])):
            return
        if (shortage := self._hold.shortage(self._config.limits.min_free_bytes)) is not None:
            self._hold.pause(shortage, clock_s)
            return
        folder = self._config.outputs / waiting[0].job_id
        try:
            make_folder(folder)
            if not waiting[0].attempts:
                # Whoever wrote the first status line made the folder, and did not wait for the disk.
                sync_folder(folder.parent)
        except OSError as error:
            self._outcomes.fail(waiting[0], f"the folder {folder} cannot be made: {error.strerror}")
            self._outcomes.write_down(now_s)
            return
        record = self._ledger.start_attempt(waiting[0].job_id, waiting[0].look.key, now_s)
        if record is None:
            self._ledger.settle_job(waiting[0].job_id, now_s)
            return
        rungs = self._rung_store.rungs(self._config, worker.ready, worker.device, now_s)
        order = self._order(record, rungs)
        self._in_hand[order.token] = AttemptInHand(record, worker.device, clock_s)
        worker.send(order, clock_s)
        log_of(record).info("attempt {} on {}", record.attempts, worker.device)

    def _order(self, record: LookRecord, rungs: tuple[Rung, ...]) -> LookOrder:
        look = record.look
        job = self._ledger.job(record.job_id)
        assert job is not None  # noqa: S101 - a look without its job is a damaged ledger
        snapshot = self._spool.paths.snapshot(record.job_id).absolute()
        return LookOrder(
            token=next(self._tokens),
            person=snapshot / look.person,
            garments={category: snapshot / name for category, name in look.garments.items()},
            options=look.options,
            output=self._config.outputs.absolute() / record.job_id / picture_name(record),
            receipt=self._spool.paths.receipt(record.job_id, look.key).absolute(),
            # Nothing that tells one job from another: the same seed gives the same bytes.
            marks={"seed": str(look.options.seed)},
            rungs=rungs,
            withheld=self._spool.paths.withheld(record.job_id).absolute(),
            subject=subject_of(job, record),
            digests={name: job.files[name] for name in (look.person, *look.garments.values()) if name in job.files},
        )
