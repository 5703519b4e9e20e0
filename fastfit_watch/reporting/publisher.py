"""Publishes status lines, the time left, reports and the gallery to `outputs/`, from a thread of its own.

The engine never waits for it. Everything is read from the ledger, so a crash loses nothing: a report that was not
confirmed is written again.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import FastFitError, StorageError
from fastfit_watch.domain.job import Job, LookProgress, LookRecord, Status
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.reporting import report, status_line
from fastfit_watch.reporting.eta import SECONDS_NOTE, LiveProgress, save_pace, steps_left, times_left_s
from fastfit_watch.reporting.gallery import ARCHIVE_FOLDER, GalleryThread
from fastfit_watch.reporting.notifications.payload import write_notifications
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths
from fastfit_watch.system.atomic_write import remove_temporaries
from fastfit_watch.system.stoppable_thread import StoppableThread

_ROUND_S = 1.0
_SHARE = 20  # drawing takes at most one part in so many of this thread's time, however long the queue is
_PUBLISH_S = 0.25  # for how long one round writes first status lines, and reports
_SHOWN_QUEUED = status_line.SHOWN_QUEUED
_SHOWN_IN_HAND = 20
_REPORTED = 100
_AGAIN_S = 60.0
_NEW_WEIGHT = 0.3


class Publisher:
    """Keeps `outputs/` up to date. `note_...` may be called from any thread and never wait."""

    def __init__(self, config: Config, ledger: Ledger, engines: int) -> None:
        self._config, self._ledger, self._engines = config, ledger, engines
        self._progress: dict[str, LookProgress] = {}
        self._noted = queue.SimpleQueue[str]()
        self._halt = ""
        self._trouble = ""
        self._seconds_per_step: float | None = None
        self._seconds_saved: float | None = None
        self._newest: tuple[int, str | None] | None = None
        self._pace_saved = False
        self._unpublished: dict[str, None] = {}
        self._draw_at_s = 0.0
        self._again_s: dict[str, float] = {}
        self._thread = StoppableThread("publisher", self._work)
        self._eta_s: dict[str, float] = {}
        self._gallery = GalleryThread(config, ledger, self._read_state)

    def start(self) -> None:
        """Start to publish about once a second, first what a crash may have left unpublished."""
        for job in self._ledger.jobs([status for status in Status if status.is_open]):
            self._noted.put(job.id)
        self._tidy_up()
        known = self._ledger.note(SECONDS_NOTE)
        self._seconds_per_step = self._seconds_saved = float(known) if known else None
        self._thread.start()
        self._gallery.start()

    def _tidy_up(self) -> None:
        """Remove what a killed daemon or engine was still writing, before anybody writes again."""
        unfinished = self._ledger.jobs([status for status in Status if not status.is_final])
        for folder in {job.id for job in (*unfinished, *self._ledger.unreported())}:
            remove_temporaries(self._config.outputs / folder)
        for place in (self._config.outputs, self._config.outputs / ARCHIVE_FOLDER):
            remove_temporaries(place)

    def stop(self) -> None:
        """Publish what is left, and stop. A report that cannot be written now is written at the next start."""
        self._gallery.request_stop()
        self._thread.stop()
        self._round(float("inf"))
        self._gallery.stop()

    def note_job(self, job_id: str) -> None:
        """An upload has a new state or reason."""
        self._noted.put(job_id)

    def note_progress(self, record: LookRecord, stage: str, step: int, steps: int, rung: str = Rung.FULL) -> None:
        """A look is at this step of this stage."""
        self._progress.pop(record.job_id, None)
        self._progress[record.job_id] = LookProgress(record.look.key, stage, step, steps, rung=rung)

    def note_seconds(self, seconds: float, steps: int) -> None:
        """A look of `steps` steps took `seconds`, from the end of the one before it."""
        measured, known = seconds / steps, self._seconds_per_step
        self._seconds_per_step = measured if known is None else known + _NEW_WEIGHT * (measured - known)

    def note_halt(self, reason: str) -> None:
        """Nothing is made for this reason; empty when work goes on."""
        self._halt = reason
        self._newest = None

    def _work(self) -> None:
        pause_s = 0.0
        while not self._thread.wait(pause_s):
            self._round(_PUBLISH_S)
            pause_s = _ROUND_S

    def _round(self, budget_s: float) -> None:
        """Publish what changed, each kind for about `budget_s`. What fails is tried again, and logged once."""
        troubles = [
            self._attempt(lambda: self._publish_uploads(budget_s)),
            self._attempt(lambda: self._publish_reports(budget_s)),
        ]
        if time.monotonic() >= self._draw_at_s or self._thread.is_stopping:
            began_s = time.monotonic()
            parts = (self._publish_active, self._save_seconds, self._save_pace, self._note_newest)
            troubles += [self._attempt(part) for part in parts]
            self._draw_at_s = began_s + _SHARE * (time.monotonic() - began_s)
        trouble = next(filter(None, troubles), "")
        if trouble and trouble != self._trouble:
            logger.warning("cannot bring the status files in {} up to date: {}", self._config.outputs, trouble)
        self._trouble = trouble

    def _attempt(self, part: Callable[[], None]) -> str:
        """Do one part of a round; returns what went wrong."""
        try:
            part()
        except (FastFitError, OSError) as error:
            return str(error)
        return ""

    def _publish_uploads(self, budget_s: float) -> None:
        """Status lines of uploads that are not claimed or stand far behind in the queue, the newest first."""
        while not self._noted.empty():
            job_id = self._noted.get()
            self._unpublished.pop(job_id, None)
            self._unpublished[job_id] = None
        if not self._unpublished:
            return
        shown = {job.id for job in self._ledger.jobs_in_turn(_SHOWN_QUEUED)}
        deadline_s, missed = time.monotonic() + budget_s, []
        while self._unpublished and time.monotonic() < deadline_s:
            job_id, _ = self._unpublished.popitem()
            job = self._ledger.job(job_id)
            behind = job is not None and job.status is Status.QUEUED and job_id not in shown
            if job is not None and (behind or job.status.is_open):
                missed += self._publish_each([job], self._publish_one)
            elif job is not None and self._newer(job) and (self._config.outputs / job.id / report.REPORT_FILE).exists():
                missed += self._publish_each([job], self._publish_finished)
        self._unpublished |= dict.fromkeys(missed)

    def _publish_one(self, job: Job) -> None:
        status_line.publish_status(self._config, job, (), None, _SHOWN_QUEUED, self._newer(job))

    def _publish_finished(self, job: Job) -> None:
        """Write the status line of a finished job anew: its folder was uploaded again."""
        status_line.publish_status(self._config, job, self._ledger.looks(job.id), None, 0, self._newer(job))

    def _newer(self, job: Job) -> str:
        """The job of the latest upload under the same name; empty if that is this one."""
        newest = self._ledger.newest_job_named(job.name)
        return newest.id if newest is not None and newest.id != job.id else ""

    def _publish_reports(self, budget_s: float) -> None:
        deadline_s, wrote = time.monotonic() + budget_s, True
        while wrote and time.monotonic() < deadline_s:
            jobs = self._ledger.unreported(_REPORTED + len(self._again_s))
            wrote = len(self._publish_each(jobs, self._report, deadline_s)) < len(jobs)

    def _report(self, job: Job) -> None:
        looks = self._ledger.looks(job.id)
        report.publish_final(self._config, job, looks, self._newer(job))
        if not self._ledger.confirm_report(job, write_notifications(self._config, job, looks, time.time())):
            return  # it has changed meanwhile: its next report follows
        self._progress.pop(job.id, None)
        self._gallery.note_report(job.id)
        logger.bind(job=job.id).info("{}: {}", job.status.value, job.reason)

    def _publish_active(self) -> None:
        """Status lines of running jobs, and of the first in the queue."""
        if not self._progress and self._read_newest() == self._newest:
            return
        shown = self._ledger.jobs_in_turn(_SHOWN_QUEUED)
        position = {job.id: number for number, job in enumerate(shown)}
        # Those that were served last stand at the end of the queue.
        in_hand = (
            self._ledger.job(job_id) for job_id in list(self._progress)[-_SHOWN_IN_HAND:] if job_id not in position
        )
        shown += [job for job in in_hand if job is not None and job.status is Status.RUNNING]
        looks = {job.id: self._ledger.looks(job.id) for job in shown}
        left = {job_id: steps_left(records, self._progress.get(job_id)) for job_id, records in looks.items()}
        pace_s = self._seconds_per_step
        times_s = {} if pace_s is None else times_left_s(left, pace_s, self._engines)
        self._eta_s = times_s
        halt = self._read_halt()

        def publish(job: Job) -> None:
            report.withdraw_report(self._config, job)
            progress = self._progress.get(job.id)
            if progress is not None:
                progress = replace(progress, eta_s=None if halt else times_s.get(job.id))
            shown_job = replace(job, reason=f"paused: {halt}") if halt else job
            place = position.get(job.id, 0)
            status_line.publish_status(self._config, shown_job, looks[job.id], progress, place, self._newer(job))

        self._publish_each(shown, publish)

    def _publish_each(
        self, jobs: Sequence[Job], publish: Callable[[Job], None], deadline_s: float = float("inf")
    ) -> list[str]:
        """Publish each job, and return the ids of those that failed or came too late: they do not stop the others.

        They are tried again after a while. A full disk stops the whole round.
        """
        missed: list[str] = []
        for job in jobs:
            if time.monotonic() < self._again_s.get(job.id, 0.0) or time.monotonic() > deadline_s:
                missed.append(job.id)
                continue
            try:
                publish(job)
                self._again_s.pop(job.id, None)
            except StorageError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one job's folder or pictures
                self._again_s[job.id] = time.monotonic() + _AGAIN_S
                missed.append(job.id)
                unknown = not isinstance(error, FastFitError | OSError)
                logger.bind(job=job.id).opt(exception=unknown).error(
                    "its status and report cannot be written: {}", error
                )
        return missed

    def _note_newest(self) -> None:
        self._newest = self._read_newest()

    def _save_seconds(self) -> None:
        if self._seconds_per_step != self._seconds_saved:
            self._ledger.put_note(SECONDS_NOTE, repr(self._seconds_per_step))
            self._seconds_saved = self._seconds_per_step

    def _save_pace(self) -> None:
        """Save for `status` what only this process knows; nothing new while nothing is in hand."""
        looks = dict(self._progress)
        if looks or self._pace_saved:
            save_pace(SpoolPaths(self._config.inputs).progress, LiveProgress(time.time(), self._engines, looks))
        self._pace_saved = bool(looks)

    def _read_halt(self) -> str:
        """Why nothing is made; empty while work goes on."""
        return self._halt or self._ledger.requests.paused() or ""

    def _read_state(self) -> tuple[dict[str, LookProgress], str]:
        """The look in hand of each job with the time left, and why nothing is made. Called by the gallery's thread."""
        eta_s = self._eta_s
        looks = {job: replace(at, eta_s=eta_s.get(job)) for job, at in dict(self._progress).items()}
        return looks, self._read_halt()

    def _read_newest(self) -> tuple[int, str | None]:
        """What differs whenever any job has changed."""
        return self._ledger.database.job_version(), self._ledger.requests.paused()
