"""Writes down what became of each look: in the ledger, and in the log.

A full disk delays it: what is still to be written waits, oldest first, and may be repeated. `now_s` is Unix seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import LookRecord, LookResult, Status
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.reporting.verification import find_proven_result, hash_picture
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import Spool
from fastfit_watch.system.atomic_write import remove_temporaries, sync_folder
from fastfit_watch.system.backoff import backoff_s

if TYPE_CHECKING:
    from loguru import Logger

Entry = Callable[[float], None]
_FOUND = "its picture was finished before its engine process ended"


class Outcomes:
    """Settles looks. Each method that takes no `now_s` only queues what `write_down` writes.

    Looks that were in a worker process when it died are suspects: each is tried alone, so that the guilty one is known.
    `on_success` is called when a picture was written down.
    """

    def __init__(self, config: Config, ledger: Ledger, spool: Spool, on_success: Callable[[], None]) -> None:
        self.config = config
        self._ledger, self._spool, self._on_success = ledger, spool, on_success
        self._suspects: set[tuple[str, str]] = set()
        self._unwritten: deque[Entry] = deque([self._recover])

    @property
    def is_written(self) -> bool:
        """Is nothing left to write?"""
        return not self._unwritten

    def write_down(self, now_s: float) -> None:
        """Write all that is left. Raises StorageError or OSError where the disk is full: the rest waits."""
        while self._unwritten:
            self._unwritten[0](now_s)
            self._unwritten.popleft()

    def append(self, entry: Entry) -> None:
        """Queue something else that is to be written, which may be repeated."""
        self._unwritten.append(entry)

    def must_be_alone(self, records: Iterable[LookRecord]) -> bool:
        """May one of these looks take its process down, so that no other may be in it?"""
        return any(record.deaths > 0 or _look_id(record) in self._suspects for record in records)

    def suspect(self, records: Iterable[LookRecord]) -> None:
        """Note looks that were in a process when it died."""
        self._suspects.update(map(_look_id, records))

    def clear(self, record: LookRecord) -> None:
        """Note a look that left its process alive."""
        self._suspects.discard(_look_id(record))

    # What a worker reported

    def finish(self, record: LookRecord, result: LookResult) -> None:
        """The picture of a look is on disk."""
        self.append(partial(self._finish, record, result))

    def withhold(self, record: LookRecord, reason: str) -> None:
        """The content filter kept the picture back."""
        self.append(partial(self._withhold, record, reason))

    def fail(self, record: LookRecord, reason: str) -> None:
        """The look cannot be made."""
        self.append(partial(self._fail, record, reason))

    def try_again(self, record: LookRecord, reason: str) -> None:
        """The attempt failed: the look is tried again after a pause, unless it was tried too often."""
        self.append(partial(self._try_again, record, reason))

    def put_back(self, record: LookRecord, reason: str) -> None:
        """The attempt ended through no fault of the look: it does not count."""
        self.append(partial(self._put_back, record, reason))

    # What a worker could not report

    def requeue_lost(self, record: LookRecord, reason: str) -> None:
        """The process is gone, and the look is not to blame."""
        self._settle_lost(record, partial(self._put_back, record, reason))

    def blame_lost(self, record: LookRecord, reason: str, *, begun: bool) -> None:
        """The process is gone, and the look is to blame; not for a death if the process had not begun it."""

        def charge(now_s: float) -> None:
            settle = self._count_death if begun else self._try_again
            settle(record, reason, now_s)
            log_of(record).error(reason)  # once: what a full disk delays is repeated

        self._settle_lost(record, charge)

    def _settle_lost(self, record: LookRecord, settle: Entry) -> None:
        """Settle a look whose process is gone; unless its picture is there, and only the report of it was lost."""

        def write(now_s: float) -> None:
            result = self._finished_before(record)
            if result is None:
                settle(now_s)
            else:
                self.clear(record)
                self._finish(record, result, now_s)
                log_of(record).info(_FOUND)

        self.append(write)

    # What is written. Each of these may be repeated after a full disk.

    def _recover(self, now_s: float) -> None:
        """After a crash, keep pictures that are whole, and queue what is missing. The first that is written."""
        engine = self.config.engine
        for record in self._ledger.running_looks():
            result = self._finished_before(record)
            if result is not None:
                self._ledger.finish_look(record.job_id, record.look.key, result, now_s)
                log_of(record).info(_FOUND)
            elif record.attempts >= max(engine.max_attempts, engine.max_deaths):
                # A look whose work takes the whole machine down must not do so for ever.
                self._fail(record, f"the daemon ended while making it (tried {record.attempts} times)", now_s)
            else:
                self._ledger.put_back(record.job_id, record.look.key, "the daemon was restarted", now_s, now_s)
                self.suspect([record])
                log_of(record).info("queued again after the restart")
        for job in self._ledger.jobs((Status.QUEUED, Status.RUNNING)):
            self._ledger.settle_job(job.id, now_s)
            remove_temporaries(self._spool.paths.receipts(job.id))

    def _finish(self, record: LookRecord, result: LookResult, now_s: float) -> None:
        picture = self.config.outputs / record.job_id / result.file
        if hash_picture(picture) != result.sha256:
            self._try_again(record, f"{picture} is not the picture that was made: it was changed or removed", now_s)
            return
        self._ledger.finish_look(record.job_id, record.look.key, result, now_s)
        self._ledger.settle_job(record.job_id, now_s)
        self._on_success()
        rung = f", rung {result.rung}" if result.rung != Rung.FULL else ""
        vram = f", peak VRAM {result.peak_vram_bytes / 2**30:.2f} GiB" if result.peak_vram_bytes else ""
        seconds = sum(result.seconds.values())
        log_of(record).info("done in {:.1f} s, seed {}{}{}", seconds, record.look.options.seed, rung, vram)

    def _withhold(self, record: LookRecord, reason: str, now_s: float) -> None:
        self._ledger.review.withhold_look(record.job_id, record.look.key, reason, now_s)
        self._ledger.settle_job(record.job_id, now_s)
        log_of(record).warning("withheld for review: {}. 'fastfit-watch release {}' shows it", reason, record.job_id)

    def _try_again(self, record: LookRecord, reason: str, now_s: float) -> None:
        engine = self.config.engine
        if record.attempts >= engine.max_attempts:
            self._fail(record, f"{reason} (tried {record.attempts} times)", now_s)
            return
        pause_s = backoff_s(record.attempts, engine.backoff_s, engine.backoff_max_s)
        self._ledger.put_back(record.job_id, record.look.key, reason, now_s + pause_s, now_s)
        self._ledger.settle_job(record.job_id, now_s)

    def _count_death(self, record: LookRecord, reason: str, now_s: float) -> None:
        deaths = record.deaths + 1
        if deaths >= self.config.engine.max_deaths:
            self._fail(record, f"it took the engine down {_times(deaths)}: {reason}", now_s)
            return
        self._ledger.put_back(record.job_id, record.look.key, reason, now_s, now_s, death=True)
        self._ledger.settle_job(record.job_id, now_s)

    def _put_back(self, record: LookRecord, reason: str, now_s: float) -> None:
        self._ledger.put_back(record.job_id, record.look.key, reason, now_s, now_s, attempt_counts=False)
        self._ledger.settle_job(record.job_id, now_s)

    def _fail(self, record: LookRecord, reason: str, now_s: float) -> None:
        self._ledger.fail_look(record.job_id, record.look.key, reason, now_s)
        self._ledger.settle_job(record.job_id, now_s)
        self.clear(record)
        log_of(record).error("failed: {}", reason)

    def _finished_before(self, record: LookRecord) -> LookResult | None:
        """The result of a look whose picture is whole and proven to be this attempt's; its name is durable then."""
        job, folder = self._ledger.job(record.job_id), self.config.outputs / record.job_id
        receipt = self._spool.paths.receipt(record.job_id, record.look.key)
        if job is None or (result := find_proven_result(receipt, folder, job, record)) is None:
            return None
        sync_folder(folder)  # whoever gave the picture its name may have ended before this
        return result


def log_of(record: LookRecord) -> Logger:
    """Return the log, bound to a look and its job."""
    return logger.bind(job=record.job_id, look=record.look.key)


def _look_id(record: LookRecord) -> tuple[str, str]:
    return record.job_id, record.look.key


def _times(number: int) -> str:
    return {1: "once", 2: "twice", 3: "three times"}.get(number, f"{number} times")
