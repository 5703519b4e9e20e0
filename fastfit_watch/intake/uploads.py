"""What intake knows of the uploads in `inputs/` between two scans, and how their states are judged and told.

Nothing here could not be found again. What changed is told once it is durable, never before.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from loguru import logger

from fastfit_watch.config.settings import WatchSettings
from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.intake.folder_times import FolderTimes
from fastfit_watch.intake.stability import Stillness, is_still, next_observation_s
from fastfit_watch.intake.validation import Verdict
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
        self, settings: WatchSettings, ledger: Ledger, watcher: Watcher, on_change: Callable[[Job], None]
    ) -> None:
        self._settings, self._ledger, self._watcher = settings, ledger, watcher
        self._on_change = on_change
        self._news: list[Job] = []
        self.known: dict[str, Upload] = {}
        self.folder_times = FolderTimes()

    @contextmanager
    def together(self) -> Iterator[None]:
        """One commit for the block; what changed in it is told when that is durable."""
        with self._ledger.transaction():
            yield
        self.publish_events()

    def queue_event(self, job: Job) -> None:
        """Remember that a job changed, for `flush`."""
        self._news.append(job)

    def publish_events(self) -> None:
        """Tell of the jobs that changed."""
        news, self._news = self._news, []
        for job in news:
            logger.bind(job=job.id).info("{}: {}", job.status.value, job.reason)
            self._on_change(job)

    def drop_events(self) -> None:
        """What should have been told was undone."""
        self._news.clear()
        self.folder_times.forget_all()

    def reload(self) -> None:
        """Learn what others wrote to the ledger."""
        before, self.known = self.known, {}
        for job in self._ledger.unclaimed_jobs():
            upload = before.get(job.name, Upload(job))
            if upload.job != job:
                upload = replace(upload, job=job, verdict=None)
                self.folder_times.forget(job.name)
            self.known[job.name] = upload

    def register(self, title: str, now_s: float) -> Upload:
        """The upload of this name, entered in the ledger at its first sight."""
        if title not in self.known:
            self.known[title] = Upload(self._ledger.find_or_create_unclaimed(title, now_s))
            self.queue_event(self.known[title].job)
        return self.known[title]

    def release(self, titles: Collection[str], reason: str, now_s: float) -> None:
        """The folders of these uploads are gone."""
        for title in titles:
            job = self.known.pop(title).job
            released = self._ledger.close_missing(job.id, reason, now_s)
            if released.status is not job.status:
                self.queue_event(released)

    def apply_verdict(self, upload: Upload, verdict: Verdict, clock_s: float, now_s: float) -> None:
        """Write a verdict to the ledger, if it is news. One that waits and is still for long has stalled."""
        limit_s = self._settings.stalled_after_s
        quiet_s = upload.stillness.quiet_s(clock_s) if upload.stillness is not None else 0.0
        if verdict.status is Status.WAITING:
            stalled = Verdict(Status.STALLED, f"{verdict.reason}; nothing has changed for {limit_s / 60:.0f} min")
            rests = upload.job.status is Status.STALLED and not upload.has_changed
            if rests and (verdict.until_still or _is_told(upload.job, stalled)):
                return  # for how long it was quiet before a restart is not known, but it has not changed since
            verdict = stalled if quiet_s >= limit_s else verdict
        if _is_told(upload.job, verdict):
            return
        before, upload.job = (
            upload.job,
            self._ledger.set_unclaimed_status(upload.job.id, verdict.status, verdict.reason, now_s),
        )
        if upload.job != before:
            upload.news_s = clock_s
            self.queue_event(upload.job)

    @property
    def settle_s(self) -> float:
        """For how long an upload must not change before it counts as complete."""
        return max(self._settings.settle_s, REMOTE_SETTLE_S if self._watcher.is_remote else 0.0)

    def may_settle(self, clock_s: float) -> bool:
        """Is there an upload that this process has not observed for long enough to see whether it stands still?

        One that keeps growing is not waited for. What an earlier process saw of an upload does not count.
        """
        open_uploads = (each for each in self.known.values() if each.job.status in (Status.WAITING, Status.STALLED))
        return any(each.news_s is None or clock_s <= each.news_s + self.settle_s for each in open_uploads)

    def is_whole(self, upload: Upload, clock_s: float) -> bool:
        """Has it not changed for long enough, or did it come whole?"""
        still = upload.stillness is not None and is_still(upload.stillness, self.settle_s, clock_s)
        return still or upload.came_whole

    def is_settled(self, upload: Upload, clock_s: float) -> bool:
        """Has it become still, after it was examined before that?"""
        return upload.verdict is not None and upload.verdict.until_still and self.is_whole(upload, clock_s)

    def next_moment_s(self, clock_s: float) -> float | None:
        """In how many seconds the verdict on an unchanged upload can change; None: not before one is touched."""
        stills = [upload.stillness for upload in self.known.values() if upload.stillness is not None]
        limits_s = (self.settle_s, self._settings.stalled_after_s)
        moments = (next_observation_s(stillness, *limits_s, clock_s) for stillness in stills)
        return min((moment for moment in moments if moment is not None), default=None)

    def explain_unreadable(self, title: str, error: OSError, now_s: float) -> None:
        """A folder that cannot be opened: gone (the next scan tells), failing hardware, or closed to us."""
        self.folder_times.forget(title)
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        if error.errno in (*STORAGE_ERRNOS, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise StorageError(f"Reading the upload {title!r} failed: {error.strerror}.") from error
        reason = f"the folder cannot be read: {error.strerror}. Make it readable: chmod -R a+rX."
        upload = self.register(title, now_s)
        upload.verdict = None
        self.apply_verdict(upload, Verdict(Status.INVALID, reason), 0.0, now_s)
        self.publish_events()


def _is_told(job: Job, verdict: Verdict) -> bool:
    return (job.status, job.reason) == (verdict.status, verdict.reason)
