"""Loop two: which look goes to which device next, and what becomes of it.

`now_s` is Unix time, for the ledger. `clock_s` is monotonic time, for waiting.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.daemon.disk_guard import DiskGuard
from fastfit_watch.daemon.rung_store import RungNotes
from fastfit_watch.daemon.worker_process import WorkerProcess, describe_exit
from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import LookRecord, LookResult, Status
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.receipts import read_receipt
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
    RungLowered,
    WorkerExited,
)
from fastfit_watch.reporting.publisher import Publisher
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import Spool
from fastfit_watch.system.atomic_write import make_folder, remove_temporaries, sync_folder
from fastfit_watch.system.backoff import backoff_s
from fastfit_watch.system.disk_errors import STORAGE_ERRNOS

if TYPE_CHECKING:
    from loguru import Logger

_FOUND = "its picture was finished before its engine process ended"
AHEAD = 2  # looks in one engine process beside those that are only being saved: one in work, one prepared meanwhile
_MOST_IN_HAND = 4  # where saving takes longer than making, pictures do not pile up


class Dispatcher:
    """Feeds the engine processes and settles every look exactly once."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        spool: Spool,
        workers: Sequence[WorkerProcess],
        publisher: Publisher,
    ) -> None:
        self.config = config
        self._ledger, self._spool, self._publisher = ledger, spool, publisher
        self._rung_store = RungNotes(ledger)
        self._workers: Mapping[str, WorkerProcess] = {worker.device: worker for worker in workers}
        self._tokens = itertools.count(1)
        self._began_s: dict[str, float] = {}
        # Looks that were in an engine process when it died: each is tried alone, so that the guilty one is known.
        self._suspects: set[tuple[str, str]] = set()
        # Tokens of looks whose engine said that it works on them, and of those that are made and only being saved.
        self._begun: set[int] = set()
        self._saving: set[int] = set()
        # What is still to be written down, oldest first. A full disk delays it; every entry may be repeated.
        self._unwritten: deque[Callable[[float], None]] = deque([self.recover])
        self._hold = DiskGuard((config.outputs, spool.paths.root), publisher.note_halt)
        self._stopping = False

    def recover(self, now_s: float) -> None:
        """The first thing `step` does: after a crash, keep pictures that are whole, and queue what is missing."""
        for record in self._ledger.running_looks():
            result = self._finished_before(record)
            if result is not None:
                self._ledger.finish_look(record.job_id, record.look.key, result, now_s)
                _log(record).info(_FOUND)
            elif record.attempts >= max(self.config.engine.max_attempts, self.config.engine.max_deaths):
                # A look whose work takes the whole machine down must not do so for ever.
                self._fail(record, f"the daemon ended while making it (tried {record.attempts} times)", now_s)
            else:
                self._ledger.put_back(record.job_id, record.look.key, "the daemon was restarted", now_s, now_s)
                self._suspects.add(_place(record))
                _log(record).info("queued again after the restart")
        for job in self._ledger.jobs((Status.QUEUED, Status.RUNNING)):
            self._ledger.settle_job(job.id, now_s)
            remove_temporaries(self._spool.paths.receipts(job.id))

    def step(self, events: Sequence[Event], now_s: float, clock_s: float, *, may_start: bool = True) -> None:
        """One turn of the loop: take in what the engines said, watch over them, write down, hand out."""
        for event in events:
            worker = self._workers[event.device]
            if worker.knows(event):
                self._handle_event(worker, event, clock_s)
        for worker in self._workers.values():
            worker.check(clock_s)
            if may_start and not self._stopping:
                worker.start(clock_s)
        try:
            self._write_down(now_s)
            self._hold.try_resume(self.config.limits.min_free_bytes, clock_s)
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
        in_hand = any(worker.in_hand for worker in self._workers.values())
        return not in_hand and (bool(self.held) or not self._unwritten)

    def stop_gently(self) -> None:
        """Start nothing more. A look in hand is finished; one prepared ahead goes back to the queue."""
        self._stopping = True
        resting = [worker for worker in self._workers.values() if not worker.in_hand]
        for worker in resting:
            worker.request_stop()
        for worker in resting:
            worker.stop()

    def stop_now(self, now_s: float) -> None:
        """End the engines at once. Looks in hand go back to the queue; what cannot be written is recovered later."""
        self._stopping = True
        for worker in self._workers.values():
            worker.kill()
            self._requeue_all(worker)
        try:
            self._write_down(now_s)
        except (StorageError, OSError) as error:
            logger.warning("not written down, the next start does it: {}", error)

    # What the engines said

    def _handle_event(self, worker: WorkerProcess, event: Event, clock_s: float) -> None:
        if isinstance(event, WorkerExited):
            self._handle_exit(worker, event.exit_code, clock_s)
            return
        message = event.message
        record = None
        if isinstance(message, LookStep | RungLowered | LookDone | LookWithheld | LookFailed):
            record = worker.in_hand.get(message.token)
        worker.handle_message(message, clock_s)
        if record is None:
            return
        if isinstance(message, LookStep):
            self._begun.add(message.token)
            if message.stage == SAVING:
                self._saving.add(message.token)
            if record is next(iter(worker.in_hand.values())):
                self._publisher.note_progress(record, message.stage, message.step, message.steps, message.rung)
            return
        if isinstance(message, RungLowered):
            _log(record).warning("on rung '{}': {} Trying '{}'.", message.tried, message.reason, message.rung)
            learnt = (self.config, worker.ready, worker.device, message.rung)
            self._unwritten.append(partial(self._rung_store.remember, *learnt))
            return
        began_s, self._began_s[worker.device] = self._began_s.get(worker.device, clock_s), clock_s
        self._suspects.discard(_place(record))
        if isinstance(message, LookDone | LookWithheld | LookFailed):
            self._begun.discard(message.token)
            self._saving.discard(message.token)
        if isinstance(message, LookDone):
            self._publisher.note_seconds(clock_s - began_s, record.look.options.steps)
            self._unwritten.append(partial(self._finish, record, message.result))
        elif isinstance(message, LookWithheld):
            self._unwritten.append(partial(self._withhold, record, message.reason))
        elif isinstance(message, LookFailed):
            if message.kind is FailureKind.MEMORY:
                self._unwritten.append(lambda now_s: self._rung_store.forget(worker.device))
            self._settle_failure(record, message, clock_s)
        if self._stopping:
            self._requeue_all(worker)
            worker.stop()

    def _settle_failure(self, record: LookRecord, failure: LookFailed, clock_s: float) -> None:
        _log(record).warning("attempt {} failed ({}): {}", record.attempts, failure.kind.value, failure.message)
        if failure.kind is FailureKind.STORAGE:
            self._unwritten.append(partial(self._put_back, record, failure.message, 0.0, attempt_counts=False))
            self._hold.pause(failure.message, clock_s)
        elif failure.kind is FailureKind.INPUT:
            self._unwritten.append(partial(self._fail, record, failure.message))
        else:
            self._unwritten.append(partial(self._try_again, record, failure.message))

    def _handle_exit(self, worker: WorkerProcess, exit_code: int, clock_s: float) -> None:
        """An engine process died. The look it worked on is blamed, not one that was prepared ahead or being saved."""
        in_hand = dict(worker.in_hand)
        begun = self._begun & in_hand.keys()
        lost = sorted(in_hand, key=lambda token: (token not in begun or token in self._saving, token))
        self._begun -= begun
        self._saving.difference_update(in_hand)
        worker.in_hand.clear()
        worker.handle_exit(exit_code, clock_s)
        blamed = lost[:1] if exit_code not in BLAMELESS else []
        for token in blamed:
            reason = f"the engine process ended while making it ({describe_exit(exit_code)})"
            # One that was handed to a process just dying is not to blame; yet none may be tried for ever.
            settle = self._count_death if token in begun else self._try_again
            self._settle_orphan(in_hand[token], partial(self._charge, in_hand[token], reason, settle))
        if blamed:
            self._suspects.update(map(_place, in_hand.values()))
        for token in lost[len(blamed) :]:
            reason = "the engine process ended before its turn"
            self._settle_orphan(
                in_hand[token], partial(self._put_back, in_hand[token], reason, 0.0, attempt_counts=False)
            )

    def _requeue_all(self, worker: WorkerProcess) -> None:
        for record in worker.in_hand.values():
            self._settle_orphan(
                record, partial(self._put_back, record, "the daemon was stopped", 0.0, attempt_counts=False)
            )
        worker.in_hand.clear()

    def _settle_orphan(self, record: LookRecord, settle: Callable[[float], None]) -> None:
        """Settle a look whose process is gone; unless its picture is there, and only the word of it was lost."""

        def write_down(now_s: float) -> None:
            result = self._finished_before(record)
            if result is None:
                settle(now_s)
            else:
                self._suspects.discard(_place(record))
                self._finish(record, result, now_s)
                _log(record).info(_FOUND)

        self._unwritten.append(write_down)

    def _charge(
        self, record: LookRecord, reason: str, settle: Callable[[LookRecord, str, float], None], now_s: float
    ) -> None:
        settle(record, reason, now_s)
        _log(record).error(reason)  # once: what a full disk delays is repeated

    # What is written down. Each of these may be repeated after a full disk.

    def _write_down(self, now_s: float) -> None:
        while self._unwritten:
            self._unwritten[0](now_s)
            self._unwritten.popleft()

    def _finish(self, record: LookRecord, result: LookResult, now_s: float) -> None:
        picture = self.config.outputs / record.job_id / result.file
        if _hash_of(picture) != result.sha256:
            self._try_again(record, f"{picture} is not the picture that was made: it was changed or removed", now_s)
            return
        self._ledger.finish_look(record.job_id, record.look.key, result, now_s)
        self._ledger.settle_job(record.job_id, now_s)
        self._hold.note_success()
        rung = f", rung {result.rung}" if result.rung != Rung.FULL else ""
        vram = f", peak VRAM {result.peak_vram_bytes / 2**30:.2f} GiB" if result.peak_vram_bytes else ""
        seconds = sum(result.seconds.values())
        _log(record).info("done in {:.1f} s, seed {}{}{}", seconds, record.look.options.seed, rung, vram)

    def _withhold(self, record: LookRecord, reason: str, now_s: float) -> None:
        self._ledger.review.withhold_look(record.job_id, record.look.key, reason, now_s)
        self._ledger.settle_job(record.job_id, now_s)
        _log(record).warning("withheld for review: {}. 'fastfit-watch release {}' shows it", reason, record.job_id)

    def _try_again(self, record: LookRecord, reason: str, now_s: float) -> None:
        settings = self.config.engine
        if record.attempts >= settings.max_attempts:
            self._fail(record, f"{reason} (tried {record.attempts} times)", now_s)
            return
        pause_s = backoff_s(record.attempts, settings.backoff_s, settings.backoff_max_s)
        self._put_back(record, reason, pause_s, now_s)

    def _count_death(self, record: LookRecord, reason: str, now_s: float) -> None:
        deaths = record.deaths + 1
        if deaths >= self.config.engine.max_deaths:
            self._fail(record, f"it took the engine down {_times(deaths)}: {reason}", now_s)
            return
        self._ledger.put_back(record.job_id, record.look.key, reason, now_s, now_s, death=True)
        self._ledger.settle_job(record.job_id, now_s)

    def _put_back(
        self, record: LookRecord, reason: str, pause_s: float, now_s: float, attempt_counts: bool = True
    ) -> None:
        key = record.look.key
        self._ledger.put_back(record.job_id, key, reason, now_s + pause_s, now_s, attempt_counts=attempt_counts)
        self._ledger.settle_job(record.job_id, now_s)

    def _fail(self, record: LookRecord, reason: str, now_s: float) -> None:
        self._ledger.fail_look(record.job_id, record.look.key, reason, now_s)
        self._ledger.settle_job(record.job_id, now_s)
        self._suspects.discard(_place(record))
        _log(record).error("failed: {}", reason)

    # Handing out

    def _fill_workers(self, now_s: float, clock_s: float) -> None:
        """First something for every idle engine, then one look ahead for each."""
        for depth in range(AHEAD):
            for worker in self._workers.values():
                in_work = len(worker.in_hand.keys() - self._saving)
                if worker.is_ready and in_work == depth and len(worker.in_hand) < _MOST_IN_HAND:
                    self._dispatch_next(worker, now_s, clock_s)

    def _dispatch_next(self, worker: WorkerProcess, now_s: float, clock_s: float) -> None:
        waiting = self._ledger.next_looks(now_s, 1)
        if not waiting or (worker.in_hand and self._must_be_alone([*worker.in_hand.values(), *waiting])):
            return
        if (shortage := self._hold.shortage(self.config.limits.min_free_bytes)) is not None:
            self._hold.pause(shortage, clock_s)
            return
        folder = self.config.outputs / waiting[0].job_id
        try:
            make_folder(folder)
            if not waiting[0].attempts:
                # Whoever wrote the first status line made the folder, and did not wait for the disk.
                sync_folder(folder.parent)
        except OSError as error:
            self._fail(waiting[0], f"the folder {folder} cannot be made: {error.strerror}", now_s)
            return
        record = self._ledger.start_attempt(waiting[0].job_id, waiting[0].look.key, now_s)
        if record is None:
            self._ledger.settle_job(waiting[0].job_id, now_s)
            return
        if not worker.in_hand:
            self._began_s[worker.device] = clock_s
        rungs = self._rung_store.rungs(self.config, worker.ready, worker.device, now_s)
        worker.send(record, self._order(record, rungs), clock_s)
        _log(record).info("attempt {} on {}", record.attempts, worker.device)

    def _must_be_alone(self, records: Sequence[LookRecord]) -> bool:
        return any(record.deaths > 0 or _place(record) in self._suspects for record in records)

    def _order(self, record: LookRecord, rungs: tuple[Rung, ...]) -> LookOrder:
        look = record.look
        snapshot = self._spool.paths.snapshot(record.job_id).absolute()
        return LookOrder(
            token=next(self._tokens),
            person=snapshot / look.person,
            garments={category: snapshot / name for category, name in look.garments.items()},
            options=look.options,
            output=self.config.outputs.absolute() / record.job_id / f"{look.key}.{look.options.format.value}",
            receipt=self._receipt_of(record).absolute(),
            # Nothing that tells one job from another: the same seed gives the same bytes.
            marks={"seed": str(look.options.seed)},
            rungs=rungs,
            withheld=self._spool.paths.withheld(record.job_id).absolute(),
            digests=self._digests_of(record),
        )

    def _digests_of(self, record: LookRecord) -> dict[str, str]:
        """SHA-256 of the look's pictures, as they were claimed."""
        job, look = self._ledger.job(record.job_id), record.look
        files = job.files if job is not None else {}
        return {name: files[name] for name in (look.person, *look.garments.values()) if name in files}

    def _receipt_of(self, record: LookRecord) -> Path:
        return self._spool.paths.receipt(record.job_id, record.look.key)

    def _finished_before(self, record: LookRecord) -> LookResult | None:
        """The result of a look whose receipt and picture are both whole; its name is durable then."""
        try:
            result = read_receipt(self._receipt_of(record).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return None
        picture = self.config.outputs / record.job_id / result.file
        if _hash_of(picture) != result.sha256:
            return None
        sync_folder(picture.parent)  # whoever gave it its name may have ended before this
        return result


def _place(record: LookRecord) -> tuple[str, str]:
    return record.job_id, record.look.key


def _times(number: int) -> str:
    return {1: "once", 2: "twice", 3: "three times"}.get(number, f"{number} times")


def _hash_of(picture: Path) -> str | None:
    try:
        return hashlib.sha256(picture.read_bytes()).hexdigest()
    except OSError as error:
        if error.errno in STORAGE_ERRNOS:
            raise
        return None


def _log(record: LookRecord) -> Logger:
    return logger.bind(job=record.job_id, look=record.look.key)
