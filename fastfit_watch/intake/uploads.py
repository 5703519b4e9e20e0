"""Tracks the uploads in `inputs/` between two scans, records their states and reports them.

Nothing here could not be found again. A change is reported once it is durable, never before.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loguru import logger

from fastfit_watch.config.settings import WatchSettings
from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.intake.folder_times import FolderTimes
from fastfit_watch.intake.review import Verdict
from fastfit_watch.intake.stability import Stillness, is_still, next_observation_s, observe
from fastfit_watch.intake.watcher import Watcher
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.disk_errors import STORAGE_ERRNOS

# A network filesystem shows the changes of others late.
REMOTE_SETTLE_S = 30.0


@dataclass
class Upload:
    """What is remembered of one upload.

    verdict: one on exactly `stillness.digest`. news_s: steady seconds when this process first observed the upload, or
    its state last changed.
    """

    job: Job
    stillness: Stillness | None = None
    verdict: Verdict | None = None
    came_whole: bool = False
    has_changed: bool = False
    news_s: float | None = None


class UploadTracker:
    """The uploads that are not claimed, by the names of their folders. `on_change` is called with every changed job."""

    def __init__(
        self,
        settings: WatchSettings,
        ledger: Ledger,
        watcher: Watcher,
        folder_times: FolderTimes,
        on_change: Callable[[Job], None],
    ) -> None:
        self._settings, self._ledger, self._watcher = settings, ledger, watcher
        self._folder_times, self._on_change = folder_times, on_change
        self._events: list[Job] = []
        self._superseded: list[tuple[Job, Job]] = []
        self._uploads: dict[str, Upload] = {}

    def __len__(self) -> int:
        """How many uploads are known."""
        return len(self._uploads)

    def find(self, name: str) -> Upload | None:
        """Return the upload of this name, if it is known."""
        return self._uploads.get(name)

    def names(self) -> list[str]:
        """Return the names of all known uploads."""
        return list(self._uploads)

    # What is known

    def reload(self) -> None:
        """Read from the ledger what others changed in it."""
        before, self._uploads = self._uploads, {}
        for job in self._ledger.unclaimed_jobs():
            upload = before.get(job.name, Upload(job))
            self._uploads[job.name] = upload
            if upload.job != job:
                self.reconsider(job.name, job)

    def clear(self) -> None:
        """Drop all: another ledger counts now."""
        self._uploads.clear()

    def register(self, name: str, now_s: float) -> Upload:
        """Return the upload of this name. One that is not known yet is entered in the ledger."""
        if name not in self._uploads:
            earlier = self._ledger.newest_job_named(name)
            job = self._ledger.find_or_create_unclaimed(name, now_s)
            self._uploads[name] = Upload(job)
            self.queue_event(job)
            if earlier is not None and earlier.id != job.id and earlier.claimed_s is not None:
                self._superseded.append((earlier, job))
        return self._uploads[name]

    def reconsider(self, name: str, job: Job) -> None:
        """Take over a job that others changed, and judge its upload anew."""
        if (upload := self._uploads.get(name)) is not None:
            upload.job, upload.verdict = job, None
            self._folder_times.forget(name)

    def remove_claimed(self, job: Job) -> None:
        """Drop an upload that became a claimed job."""
        del self._uploads[job.name]
        self.queue_event(job)

    def close_missing(self, names: Collection[str], reason: str, now_s: float) -> None:
        """Close the jobs of uploads whose folders are gone."""
        for name in names:
            job = self._uploads.pop(name).job
            closed = self._ledger.close_missing(job.id, reason, now_s)
            if closed.status is not job.status:
                self.queue_event(closed)

    # Events

    @contextmanager
    def one_commit(self) -> Iterator[None]:
        """Write what the block changes in one commit, and report it when that is durable."""
        with self._ledger.transaction():
            yield
        self.publish_events()

    def queue_event(self, job: Job) -> None:
        """Keep a changed job for `publish_events`."""
        self._events.append(job)

    def publish_events(self) -> None:
        """Report the jobs that changed."""
        events, self._events = self._events, []
        for job in events:
            level = "WARNING" if job.status is Status.INVALID else "INFO"
            logger.bind(job=job.id).log(level, "{}: {}", job.status.value, job.reason)
            self._on_change(job)
        superseded, self._superseded = self._superseded, []
        for earlier, job in superseded:
            logger.bind(job=earlier.id).info("the folder {!r} was uploaded again: see the job {!r}", job.name, job.id)
            self._on_change(earlier)

    def drop_events(self) -> None:
        """Report nothing of what was undone, and read all folders again."""
        self._events.clear()
        self._superseded.clear()
        self._folder_times.forget_all()

    # Stability and verdicts

    @property
    def settle_s(self) -> float:
        """For how long an upload must not change before it counts as complete."""
        return max(self._settings.settle_s, REMOTE_SETTLE_S if self._watcher.is_remote else 0.0)

    def observe(self, upload: Upload, digest: str, clock_s: float, *, arrived_whole: bool = False) -> None:
        """Note what an upload holds now. A change makes its verdict void."""
        changed = upload.stillness is not None and upload.stillness.digest != digest
        upload.came_whole = arrived_whole or (upload.came_whole and not changed)
        upload.stillness = observe(upload.stillness, digest, clock_s)
        upload.news_s = clock_s if upload.news_s is None else upload.news_s
        if changed:
            upload.verdict, upload.has_changed = None, True

    def is_whole(self, upload: Upload, clock_s: float) -> bool:
        """Has it not changed for long enough, or did it come whole?"""
        still = upload.stillness is not None and is_still(upload.stillness, self.settle_s, clock_s)
        return still or upload.came_whole

    def must_validate(self, upload: Upload, clock_s: float) -> bool:
        """Can validation find something else than the last time?"""
        verdict = upload.verdict
        if verdict is None or self.has_settled(upload, clock_s):
            return True
        return not (verdict.lasting or verdict.until_still)

    def has_settled(self, upload: Upload, clock_s: float) -> bool:
        """Has it become still, after it was validated before that?"""
        return upload.verdict is not None and upload.verdict.until_still and self.is_whole(upload, clock_s)

    def may_settle(self, clock_s: float) -> bool:
        """Is there an upload that this process has not observed for long enough to see whether it stands still?

        One that keeps growing is not waited for. What an earlier process saw of an upload does not count.
        """
        open_uploads = (each for each in self._uploads.values() if each.job.status in (Status.WAITING, Status.STALLED))
        return any(each.news_s is None or clock_s <= each.news_s + self.settle_s for each in open_uploads)

    def next_moment_s(self, clock_s: float) -> float | None:
        """In how many seconds the verdict on an unchanged upload can change; None: not before one is touched."""
        stills = [upload.stillness for upload in self._uploads.values() if upload.stillness is not None]
        limits_s = (self.settle_s, self._settings.stalled_after_s)
        moments = (next_observation_s(stillness, *limits_s, clock_s) for stillness in stills)
        return min((moment for moment in moments if moment is not None), default=None)

    def apply_verdict(self, upload: Upload, verdict: Verdict, clock_s: float, now_s: float) -> None:
        """Write a verdict to the ledger, if it is news. One that waits and is still for long has stalled."""
        limit_s = self._settings.stalled_after_s
        quiet_s = upload.stillness.quiet_s(clock_s) if upload.stillness is not None else 0.0
        if verdict.status is Status.WAITING:
            stalled = Verdict(Status.STALLED, f"{verdict.reason}; nothing has changed for {limit_s / 60:.0f} min")
            rests = upload.job.status is Status.STALLED and not upload.has_changed
            if rests and (verdict.until_still or _is_recorded(upload.job, stalled)):
                return  # for how long it was quiet before a restart is not known, but it has not changed since
            verdict = stalled if quiet_s >= limit_s else verdict
        if _is_recorded(upload.job, verdict):
            return
        before = upload.job
        upload.job = self._ledger.set_unclaimed_status(before.id, verdict.status, verdict.reason, now_s)
        if upload.job != before:
            upload.news_s = clock_s
            self.queue_event(upload.job)

    def explain_unreadable(self, name: str, error: OSError, now_s: float) -> None:
        """A folder that cannot be opened is gone (the next scan finds out), on failing hardware, or closed to us."""
        self._folder_times.forget(name)
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        if error.errno in (*STORAGE_ERRNOS, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise StorageError(f"Reading the upload {name!r} failed: {error.strerror}.") from error
        reason = f"the folder cannot be read: {error.strerror}. Make it readable: chmod -R a+rX."
        upload = self.register(name, now_s)
        upload.verdict = None
        self.apply_verdict(upload, Verdict(Status.INVALID, reason), 0.0, now_s)
        self.publish_events()


def _is_recorded(job: Job, verdict: Verdict) -> bool:
    return (job.status, job.reason) == (verdict.status, verdict.reason)
