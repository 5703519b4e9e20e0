"""What people are told while work goes on: status lines, time left, reports and the gallery, from a thread of its own.

Drawing a contact sheet takes seconds; the engine never waits for it. Everything told is read from the ledger, so a
crash loses nothing: a report that was not confirmed is written again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import FastFitError, StorageError
from fastfit_watch.domain.job import Job, LookProgress, LookRecord, Status
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.reporting import report, status_line
from fastfit_watch.reporting.eta import PACE_FILE, SECONDS_NOTE, LiveProgress, save_pace, steps_left, times_left_s
from fastfit_watch.reporting.gallery import SHELF_FOLDER, Gallery
from fastfit_watch.reporting.notifications.payload import write_notifications
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.atomic_write import remove_temporaries

_ROUND_S = 1.0
_SHARE = 20  # drawing takes at most one part in so many of this thread's time, however long the queue is
_TELL_S = 0.25  # for how long one round writes first status lines, and reports
_SHOWN_QUEUED = status_line.SHOWN_QUEUED
_SHOWN_IN_HAND = 20
_REPORTED = 100
_AGAIN_S = 60.0
_NEW_WEIGHT = 0.3
_GALLERY_ROUND_S = 0.5
_GALLERY_SHARE = 9  # the gallery takes at most a tenth of one core
_GALLERY_LAST_S = 10.0


class Publisher:
    """Keeps `outputs/` telling the truth. `note_...` may be called from any thread and never wait."""

    def __init__(self, config: Config, ledger: Ledger, engines: int) -> None:
        self._config, self._ledger, self._engines = config, ledger, engines
        self._progress: dict[str, LookProgress] = {}
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._held = ""
        self._trouble = ""
        self._seconds_per_step: float | None = None
        self._seconds_saved: float | None = None
        self._newest: tuple[int, str | None] | None = None
        self._pace_saved = False
        self._untold: dict[str, None] = {}
        self._draw_at_s = 0.0
        self._again_s: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="announce", daemon=True)
        # The gallery has a thread of its own: shrinking large photographs must not make a status line wait.
        self._gallery = Gallery(config, ledger)
        self._gallery_thread = threading.Thread(target=self._keep_gallery, name="gallery", daemon=True)
        self._gallery_trouble = ""
        self._eta_s: dict[str, float] = {}

    def start(self) -> None:
        """Begin to publish about once a second. Uploads that wait are told of again: a crash may have come between."""
        for job in self._ledger.jobs([status for status in Status if status.is_open]):
            self._told.put(job.id)
        self._tidy_up()
        known = self._ledger.note(SECONDS_NOTE)
        self._seconds_per_step = self._seconds_saved = float(known) if known else None
        self._thread.start()
        self._gallery_thread.start()

    def _tidy_up(self) -> None:
        """Remove what a killed daemon or engine was still writing, before anybody writes again."""
        unfinished = self._ledger.jobs([status for status in Status if not status.is_final])
        for folder in {job.id for job in (*unfinished, *self._ledger.unreported())}:
            remove_temporaries(self._config.outputs / folder)
        for place in (self._config.outputs, self._config.outputs / SHELF_FOLDER):
            remove_temporaries(place)

    def finish(self) -> None:
        """Publish what is left to say, and stop. A report that cannot be written now is written at the next start."""
        self._stop.set()
        for thread in (self._thread, self._gallery_thread):
            if thread.is_alive():
                thread.join()
        self._round(float("inf"))
        self._draw_gallery(_GALLERY_LAST_S)

    def note_job(self, job_id: str) -> None:
        """An upload has a new state or reason."""
        self._told.put(job_id)

    def note_progress(self, record: LookRecord, stage: str, step: int, steps: int, rung: str = Rung.FULL) -> None:
        """A look moved on."""
        self._progress.pop(record.job_id, None)
        self._progress[record.job_id] = LookProgress(record.look.key, stage, step, steps, rung=rung)

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
            self._round(_TELL_S)
            pause_s = _ROUND_S

    def _round(self, tell_s: float) -> None:
        """Publish what changed, each kind for about `tell_s`. What fails is tried again, and said once."""
        troubles = [self._attempt(lambda: self._tell_uploads(tell_s)), self._attempt(lambda: self._tell_final(tell_s))]
        if time.monotonic() >= self._draw_at_s or self._stop.is_set():
            began_s = time.monotonic()
            parts = (self._tell_active, self._save_seconds, self._save_pace, self._note_newest)
            troubles += [self._attempt(part) for part in parts]
            self._draw_at_s = began_s + _SHARE * (time.monotonic() - began_s)
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

    def _tell_uploads(self, tell_s: float) -> None:
        """Status lines of uploads that are not claimed or stand far behind in line, the newest first."""
        while not self._told.empty():
            job_id = self._told.get()
            self._untold.pop(job_id, None)
            self._untold[job_id] = None
        if not self._untold:
            return
        shown = {job.id for job in self._ledger.jobs_in_turn(_SHOWN_QUEUED)}
        deadline_s, missed = time.monotonic() + tell_s, []
        while self._untold and time.monotonic() < deadline_s:
            job_id, _ = self._untold.popitem()
            job = self._ledger.job(job_id)
            behind = job is not None and job.status is Status.QUEUED and job_id not in shown
            if job is not None and (behind or job.status.is_open):
                missed += self._tell_each([job], self._tell_one)
        self._untold |= dict.fromkeys(missed)

    def _tell_one(self, job: Job) -> None:
        status_line.publish_status(self._config, job, (), None, _SHOWN_QUEUED)

    def _tell_final(self, tell_s: float) -> None:
        deadline_s, told = time.monotonic() + tell_s, True
        while told and time.monotonic() < deadline_s:
            jobs = self._ledger.unreported(_REPORTED + len(self._again_s))
            told = len(self._tell_each(jobs, self._report, deadline_s)) < len(jobs)

    def _report(self, job: Job) -> None:
        looks = self._ledger.looks(job.id)
        report.publish_final(self._config, job, looks)
        if not self._ledger.confirm_report(job, write_notifications(self._config, job, looks, time.time())):
            return  # it is another story by now, which is told next
        self._progress.pop(job.id, None)
        self._gallery.note_report(job.id)
        logger.bind(job=job.id).info("{}: {}", job.status.value, job.reason)

    def _tell_active(self) -> None:
        """Status lines of running jobs, and of the first in line."""
        if not self._progress and self._read_newest() == self._newest:
            return
        shown = self._ledger.jobs_in_turn(_SHOWN_QUEUED)
        place = {job.id: number for number, job in enumerate(shown)}
        # Those that were served last stand at the end of the line.
        in_hand = (self._ledger.job(job_id) for job_id in list(self._progress)[-_SHOWN_IN_HAND:] if job_id not in place)
        shown += [job for job in in_hand if job is not None and job.status is Status.RUNNING]
        looks = {job.id: self._ledger.looks(job.id) for job in shown}
        left = {job_id: steps_left(records, self._progress.get(job_id)) for job_id, records in looks.items()}
        pace_s = self._seconds_per_step
        times_s = {} if pace_s is None else times_left_s(left, pace_s, self._engines)
        self._eta_s = times_s
        halt = self._held or self._ledger.paused()

        def tell(job: Job) -> None:
            report.withdraw_report(self._config, job)
            progress = self._progress.get(job.id)
            if progress is not None:
                progress = replace(progress, eta_s=times_s.get(job.id))
            told = replace(job, reason=f"paused: {halt}") if halt else job
            status_line.publish_status(self._config, told, looks[job.id], progress, place.get(job.id, 0))

        self._tell_each(shown, tell)

    def _tell_each(
        self, jobs: Sequence[Job], tell: Callable[[Job], None], deadline_s: float = float("inf")
    ) -> list[str]:
        """Tell of each job, and return those that could not be told of: they are no reason to be silent about others.

        They are tried again after a while. A full disk stops the whole round.
        """
        missed: list[str] = []
        for job in jobs:
            if time.monotonic() < self._again_s.get(job.id, 0.0) or time.monotonic() > deadline_s:
                missed.append(job.id)
                continue
            try:
                tell(job)
                self._again_s.pop(job.id, None)
            except StorageError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one job's folder or pictures
                self._again_s[job.id] = time.monotonic() + _AGAIN_S
                missed.append(job.id)
                unknown = not isinstance(error, FastFitError | OSError)
                logger.bind(job=job.id).opt(exception=unknown).error("cannot tell people about it: {}", error)
        return missed

    def _note_newest(self) -> None:
        self._newest = self._read_newest()

    def _keep_gallery(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            began_s = time.monotonic()
            self._draw_gallery(_GALLERY_ROUND_S)
            pause_s = max(_ROUND_S, _GALLERY_SHARE * (time.monotonic() - began_s))

    def _draw_gallery(self, budget_s: float) -> None:
        """Bring the gallery up to date. What fails is tried again in the next round, and said once."""
        trouble = ""
        eta_s = self._eta_s
        progress = {job: replace(at, eta_s=eta_s.get(job)) for job, at in dict(self._progress).items()}
        try:
            self._gallery.publish(progress, self._held or self._ledger.paused() or "", budget_s)
        except (FastFitError, OSError) as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001 - pages are no reason to end the daemon's other news
            trouble = repr(error)
            if trouble != self._gallery_trouble:
                logger.exception("the gallery in {} cannot be drawn", self._config.outputs)
        if trouble and trouble != self._gallery_trouble:
            logger.warning("cannot bring the gallery in {} up to date: {}", self._config.outputs, trouble)
        self._gallery_trouble = trouble

    def _save_seconds(self) -> None:
        if self._seconds_per_step != self._seconds_saved:
            self._ledger.put_note(SECONDS_NOTE, repr(self._seconds_per_step))
            self._seconds_saved = self._seconds_per_step

    def _save_pace(self) -> None:
        """Leave for `status` what only this process knows; nothing new while nothing is in hand."""
        looks = dict(self._progress)
        if looks or self._pace_saved:
            save_pace(self._config.spool / PACE_FILE, LiveProgress(time.time(), self._engines, looks))
        self._pace_saved = bool(looks)

    def _read_newest(self) -> tuple[int, str | None]:
        """What differs whenever any job has changed."""
        return self._ledger.job_version(), self._ledger.paused()
