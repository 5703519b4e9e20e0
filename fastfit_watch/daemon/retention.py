"""Finished jobs do not fill the disk: their uploads, and if wished their results, are kept for a time and then removed.

What is not finished is never touched. The ledger says `leaving` before the first file goes and `gone` after the last,
so a start after a crash goes on where it was cut short. Only folders of our own are removed, through their handles and
never through a symlink. The ledger remembers every job for good.

Time is counted by a calendar of its own that follows the steady clock, so that a clock set a year ahead removes
nothing. While the daemon does not run the calendar follows the wall clock, by at most a day.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import Job
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.retention_marks import Kept
from fastfit_watch.storage.spool import Spool
from fastfit_watch.system.disk_errors import STORAGE_ERRNOS
from fastfit_watch.system.failpoints import failpoint
from fastfit_watch.system.folders import open_folder, remove_tree
from fastfit_watch.system.stoppable_thread import StoppableThread

NOTE = "retention"
_UNITS_S = {"min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_PAUSE_S, _SHORT_S = 15.0, 0.1
_SAVE_S = 600.0
_MOST_OFF_S = 86400.0
_AT_ONCE, _FOR_ROOM, _BEGUN = 20, 5, 500
_AGAIN_S = 3600.0


def seconds_of(duration: str) -> float | None:
    """`30min`, `12h`, `7d` or `2w` in seconds; None for `forever`. Raises ValueError for anything else."""
    if duration == "forever":
        return None
    match = re.fullmatch(r"(\d{1,5})(min|h|d|w)", duration)
    if match is None:
        raise ValueError(f"{duration!r} is no duration such as 7d, 12h, 30min, 2w or forever")
    return int(match[1]) * _UNITS_S[match[2]]


class RetentionThread:
    """Removes what was kept long enough, in a thread of its own; `step` is one turn of it."""

    def __init__(self, config: Config, ledger: Ledger, spool: Spool) -> None:
        self._config, self._ledger, self._spool = config, ledger, spool
        self._calendar_s: float | None = None
        self._clock_s = self._saved_s = 0.0
        self._failed_s: dict[str, float] = {}
        self._trouble = ""
        self._thread = StoppableThread("retention", self._work)

    def start(self) -> None:
        """Begin. What a crash cut short is finished first."""
        self._thread.start()

    def stop(self) -> None:
        """End after the job whose files are being removed."""
        self._thread.stop()

    def adopt(self, config: Config) -> None:
        """Use these settings from the next turn on."""
        self._config = config

    def _work(self) -> None:
        pause_s = 0.0
        while not self._thread.wait(pause_s):
            try:
                pause_s = _SHORT_S if self.step(time.time(), time.monotonic()) else _PAUSE_S
                self._trouble = ""
            except (StorageError, OSError) as error:
                pause_s = _PAUSE_S
                if str(error) != self._trouble:
                    logger.warning("nothing can be removed just now: {}", error)
                self._trouble = str(error)

    def step(self, now_s: float, clock_s: float) -> bool:
        """Remove a few jobs' files; returns whether there is more to do at once.

        now_s: Unix seconds, used only for the time while no daemon ran. clock_s: steady seconds.
        """
        calendar_s = self._advance(now_s, clock_s)
        more = self._ledger.retention.begin_keeping(calendar_s, _BEGUN) == _BEGUN
        settings = self._config.retention
        times: tuple[tuple[Kept, str], ...] = (("upload", settings.keep_uploads), ("results", settings.keep_results))
        for what, duration in times:
            kept_s = seconds_of(duration)
            if kept_s is not None:
                more |= self._ledger.retention.begin_leaving(what, calendar_s - kept_s, _AT_ONCE) == _AT_ONCE
        if settings.make_room and self._is_short():
            more |= self._ledger.retention.begin_leaving("upload", float("inf"), _FOR_ROOM) > 0
        self._remove("upload", self._spool.paths.jobs, clock_s)
        self._remove("results", self._config.outputs, clock_s)
        return more

    def _advance(self, now_s: float, clock_s: float) -> float:
        """The calendar, in seconds; kept in the ledger now and then."""
        if self._calendar_s is None:
            saved = json.loads(self._ledger.note(NOTE) or '{"calendar_s": 0, "wall_s": null}')
            off_s = now_s - saved["wall_s"] if saved["wall_s"] is not None else 0.0
            self._calendar_s = saved["calendar_s"] + min(max(off_s, 0.0), _MOST_OFF_S)
            self._saved_s = float("-inf")
        else:
            self._calendar_s += max(0.0, clock_s - self._clock_s)
        self._clock_s = clock_s
        if clock_s - self._saved_s >= _SAVE_S:
            self._ledger.put_note(NOTE, json.dumps({"calendar_s": self._calendar_s, "wall_s": now_s}))
            self._saved_s = clock_s
        return self._calendar_s

    def _is_short(self) -> bool:
        """Is there too little space for the queue, or for the upload that waits for room?"""
        disk = os.statvfs(self._spool.paths.root)
        wanted_bytes = max(self._config.limits.min_free_bytes, self._spool.wanted_bytes)
        return disk.f_bavail * disk.f_frsize < wanted_bytes

    def _remove(self, what: Kept, parent: Path, clock_s: float) -> None:
        """Remove what is leaving. A folder that cannot be removed is tried again later, and said once."""
        gone: list[Job] = []
        with open_folder(f"{parent}/.") as parent_fd:
            for job in self._ledger.retention.leaving(what, _AT_ONCE + len(self._failed_s)):
                key = f"{what} {job.id}"
                if self._thread.is_stopping or clock_s < self._failed_s.get(key, float("-inf")) + _AGAIN_S:
                    continue
                try:
                    remove_tree(job.id, parent_fd)
                except OSError as error:
                    if error.errno in STORAGE_ERRNOS:
                        raise
                    logger.warning("{} of job {!r} cannot be removed: {}", what, job.id, error.strerror)
                    self._failed_s[key] = clock_s
                    continue
                self._failed_s.pop(key, None)
                gone.append(job)
            os.fsync(parent_fd)
        if gone:
            failpoint("retention.removed")
            self._ledger.retention.confirm_gone(what, [job.id for job in gone])
            logger.info("removed the {} of {} finished jobs, {!r} the last", what, len(gone), gone[-1].id)
