"""What people are told while work goes on: status lines, time left, reports and the gallery, from a thread of its own.

Drawing a contact sheet takes seconds; the engine never waits for it. Everything told is read from the ledger, so a
crash loses nothing: a report that was not confirmed is written again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from loguru import logger

from fastfit_watch import gallery, report
from fastfit_watch.config import Config
from fastfit_watch.errors import FastFitError, StorageError
from fastfit_watch.job import Job, LookRecord, LookStatus, Progress, Status
from fastfit_watch.ledger import Ledger

_ACTIVE = (Status.RUNNING, Status.QUEUED)
_PENDING = (LookStatus.RUNNING, LookStatus.QUEUED)
_ROUND_S = 1.0
_SHARE = 20  # a round takes at most one part in so many of this thread's time, however long the queue is
_SHOWN_QUEUED = 50
_AGAIN_S = 60.0
_SECONDS_NOTE = "seconds_per_step"
_NEW_WEIGHT = 0.3


@dataclass(frozen=True)
class _Newest:
    """What differs whenever any job has changed."""

    job_id: str
    status: Status
    changed_s: float
    paused: str | None


class Announcer:
    """Keeps `outputs/` telling the truth. `note_...` may be called from any thread and never wait."""

    def __init__(self, config: Config, ledger: Ledger, engines: int) -> None:
        self._config, self._ledger, self._engines = config, ledger, engines
        self._progress: dict[str, Progress] = {}
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._held = ""
        self._trouble = ""
        self._seconds_per_step: float | None = None
        self._seconds_saved: float | None = None
        self._newest: _Newest | None = None
        self._untold: set[str] = set()
        self._again_s: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="announce", daemon=True)

    def start(self) -> None:
        """Begin to publish about once a second. Uploads that wait are told of again: a crash may have come between."""
        for job in self._ledger.jobs([status for status in Status if status.is_open]):
            self._told.put(job.id)
        known = self._ledger.note(_SECONDS_NOTE)
        self._seconds_per_step = self._seconds_saved = float(known) if known else None
        self._thread.start()

    def finish(self) -> None:
        """Publish what is left to say, and stop. A report that cannot be written now is written at the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._round()

    def note_job(self, job_id: str) -> None:
        """An upload has a new state or reason."""
        self._told.put(job_id)

    def note_progress(self, record: LookRecord, stage: str, step: int, steps: int) -> None:
        """A look moved on."""
        self._progress[record.job_id] = Progress(record.look.key, stage, step, steps)

    def note_seconds(self, seconds: float, steps: int) -> None:
        """A look of `steps` steps took `seconds`, from the end of the one before it."""
        measured, known = seconds / steps, self._seconds_per_step
        self._seconds_per_step = measured if known is None else known + _NEW_WEIGHT * (measured - known)

    def note_hold(self, reason: str) -> None:
        """The queue stands still for this reason; empty when it goes on."""
        self._held = reason
        self._newest = None

    def _work(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            began_s = time.monotonic()
            self._round()
            pause_s = max(_ROUND_S, _SHARE * (time.monotonic() - began_s))

    def _round(self) -> None:
        """Publish whatever changed. What fails is tried again in the next round, and said once."""
        troubles = [self._attempt(part) for part in (self._tell_uploads, self._tell_final, self._tell_active)]
        troubles += [self._attempt(part) for part in (self._draw_gallery, self._save_seconds)]
        trouble = next(filter(None, troubles), "")
        if trouble and trouble != self._trouble:
            logger.warning("cannot tell people in {} how things are: {}", self._config.outputs, trouble)
        self._trouble = trouble

    def _attempt(self, part: Callable[[], None]) -> str:
        """Do one part of a round; returns what went wrong."""
        try:
            part()
        except (FastFitError, OSError) as error:
            return str(error)
        return ""

    def _tell_uploads(self) -> None:
        """Status lines of uploads that are not claimed."""
        while not self._told.empty():
            self._untold.add(self._told.get())
        known = [self._ledger.job(job_id) for job_id in sorted(self._untold)]
        uploads = [job for job in known if job is not None and job.status.is_open]
        missed = self._tell_each(uploads, lambda job: report.publish_status(self._config, job, (), None, 0))
        self._untold = set(missed)

    def _tell_final(self) -> None:
        self._tell_each(self._ledger.unreported(), self._report)

    def _report(self, job: Job) -> None:
        report.publish_final(self._config, job, self._ledger.looks(job.id))
        self._ledger.confirm_report(job.id)
        self._progress.pop(job.id, None)
        logger.bind(job=job.id).info("{}: {}", job.status.value, job.reason)

    def _tell_active(self) -> None:
        """Status lines of running jobs, and of the first in line."""
        if not self._progress and self._read_newest() == self._newest:
            return
        active = sorted(self._ledger.jobs(_ACTIVE), key=lambda job: job.claimed_s or 0.0)
        shown = [job for job in active if job.status is Status.RUNNING]
        shown += [job for job in active if job.status is Status.QUEUED][:_SHOWN_QUEUED]
        looks = {job.id: self._ledger.looks(job.id) for job in shown}
        left = {job_id: _steps_left(records, self._progress.get(job_id)) for job_id, records in looks.items()}
        halt = self._held or self._ledger.paused()

        def tell(job: Job) -> None:
            report.withdraw_report(self._config, job)
            progress = self._progress.get(job.id)
            if progress is not None:
                progress = replace(progress, eta_s=self._time_left_s(job.id, left))
            told = replace(job, reason=f"paused: {halt}") if halt else job
            report.publish_status(self._config, told, looks[job.id], progress, active.index(job))

        self._tell_each(shown, tell)

    def _tell_each(self, jobs: Sequence[Job], tell: Callable[[Job], None]) -> list[str]:
        """Tell of each job, and return those that could not be told of: they are no reason to be silent about others.

        They are tried again after a while. A full disk stops the whole round.
        """
        missed: list[str] = []
        for job in jobs:
            if time.monotonic() < self._again_s.get(job.id, 0.0):
                missed.append(job.id)
                continue
            try:
                tell(job)
            except StorageError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one job's folder or pictures
                self._again_s[job.id] = time.monotonic() + _AGAIN_S
                missed.append(job.id)
                unknown = not isinstance(error, FastFitError | OSError)
                logger.bind(job=job.id).opt(exception=unknown).error("cannot tell people about it: {}", error)
        return missed

    def _time_left_s(self, job_id: str, left: Mapping[str, float]) -> float | None:
        """Seconds until the job is made: jobs take turns, so each of the others delays it by at most its own length."""
        if self._seconds_per_step is None:
            return None
        steps = sum(min(other, left[job_id]) for other in left.values())
        return steps * self._seconds_per_step / self._engines

    def _draw_gallery(self) -> None:
        newest = self._read_newest()
        if newest != self._newest:
            gallery.publish(self._config, self._ledger)
            self._newest = newest

    def _save_seconds(self) -> None:
        if self._seconds_per_step != self._seconds_saved:
            self._ledger.put_note(_SECONDS_NOTE, repr(self._seconds_per_step))
            self._seconds_saved = self._seconds_per_step

    def _read_newest(self) -> _Newest | None:
        jobs: list[Job] = self._ledger.jobs(limit=1)
        return _Newest(jobs[0].id, jobs[0].status, jobs[0].changed_s, self._ledger.paused()) if jobs else None


def _steps_left(records: list[LookRecord], progress: Progress | None) -> float:
    """Denoising steps still to do for a job."""
    steps = sum(record.look.options.steps for record in records if record.status in _PENDING)
    return max(0, steps - (progress.step if progress is not None else 0))
