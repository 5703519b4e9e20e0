"""Loop one: find uploads, wait until each is complete, check it, and take it into the spool.

A scan tells what is there; nothing is kept in memory that a new start could not find again. A folder is read again
only after it changed, so a scan of quiet folders costs next to nothing.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from loguru import logger

from fastfit_watch.config import Config
from fastfit_watch.errors import ConfigError, StorageError
from fastfit_watch.examine import WRITING, Examiner, PictureInspector, Verdict
from fastfit_watch.folders import STORAGE_ERRNOS, FileChanged, Listing, Order, list_folder, open_folder, remove_order
from fastfit_watch.job import Job, Status
from fastfit_watch.ledger import Ledger
from fastfit_watch.settle import Stillness, digest_of, is_still, next_look_s, observe
from fastfit_watch.spool import Spool
from fastfit_watch.watch import EVENTS, Bell, Sighting, Watcher, scan

NOTE = "intake"
REMOVED = "the folder was removed before it was complete"
# A network filesystem shows the changes of others late.
REMOTE_SETTLE_S = 30.0
# Scans take at most this share of the time, however many folders there are.
SCAN_SHARE = 0.02
SHORTEST_WAIT_S = 0.05
# How often a long examination looks up to greet new folders.
GREET_S = 1.0


@dataclass
class _Upload:
    """What intake remembers of a folder between scans. `verdict` is a lasting one on exactly `stillness.digest`."""

    job: Job
    stillness: Stillness | None = None
    verdict: Verdict | None = None
    came_whole: bool = False


class Intake:
    """`step` is one scan; `run` repeats it until told to stop.

    on_change is called with a job after every change of its state or reason.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        spool: Spool,
        inspector: PictureInspector,
        watcher: Watcher,
        bell: Bell,
        on_change: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._inputs = config.inputs
        self._limits = config.limits
        self._watch = config.watch
        self._ledger = ledger
        self._spool = spool
        self._examiner = Examiner(config, spool, inspector)
        self._watcher = watcher
        self._bell = bell
        self._on_change = on_change
        self._uploads: dict[str, _Upload] = {}
        self._copied: dict[str, str] = {}
        self._placeholders: set[str] = set()
        self._change_count: int | None = None
        self._scanned_once = False
        self._greeted_s = 0.0
        self._noted: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Scan until `stop` is set. Ring the bell after setting it."""
        self._watcher.start()
        try:
            while not stop.is_set():
                self._bell.wait(self.step(time.time(), time.monotonic()))
        finally:
            self._watcher.stop()

    def step(self, now_s: float, clock_s: float | None = None) -> float:
        """Do one scan and return in how many seconds the next is due.

        now_s: Unix seconds, for the ledger. clock_s: steady seconds, to tell stillness (`now_s` if not given). A full
        or failing disk is noted under "intake" in the ledger, and the next step tries again.
        """
        steady_s = now_s if clock_s is None else clock_s
        began_s = time.perf_counter()
        try:
            folders = self._scan(now_s, steady_s)
            self._note("")
        except StorageError as error:
            self._note(f"paused: {error}")
            return self._watch.scan_s
        return self._next_wait_s(folders, time.perf_counter() - began_s, steady_s)

    def _scan(self, now_s: float, clock_s: float) -> int:
        """One scan; returns how many folders there are."""
        self._watcher.revive()
        self._refresh(now_s)
        sightings = scan(self._inputs)
        arrivals = self._watcher.take_arrivals()
        # First all the cheap looks, so that every new folder is greeted before a long examination begins.
        due = [sighting for sighting in sightings if self._look_at(sighting, arrivals, now_s, clock_s)]
        self._release_missing({sighting.title for sighting in sightings}, now_s)
        for sighting in due:
            self._examine(sighting, now_s, clock_s)
        self._scanned_once = True
        return len(sightings)

    def _refresh(self, now_s: float) -> None:
        """Make sure of the spool, finish interrupted claims, and learn what the commands wrote to the ledger."""
        if not self._inputs.is_dir():
            raise StorageError(f"The folder {self._inputs} is gone.", hint="Make it again, or mount it.")
        if not self._spool.is_ours():
            try:
                self._spool.lock()
            except ConfigError as error:
                raise StorageError(error.message, hint=error.hint) from error
            self._uploads.clear()
            self._change_count = None
        for job in self._spool.recover(self._ledger, now_s):
            self._change_count = None
            self._placeholders.add(job.name)
            self._tell(job)
        if not self._scanned_once:
            self._spool.sweep(self._ledger)
        count = self._ledger.change_count()
        if count == self._change_count:
            return
        self._change_count = count
        before, self._uploads = self._uploads, {}
        for job in self._ledger.holders():
            upload = before.get(job.name, _Upload(job))
            self._uploads[job.name] = upload if upload.job == job else replace(upload, job=job, verdict=None)

    def _look_at(self, sighting: Sighting, arrivals: Collection[str], now_s: float, clock_s: float) -> bool:
        """Take in what one folder holds, without reading any file; returns whether it must be examined."""
        if sighting.fault:
            self._judge(self._meet(sighting.title, now_s), Verdict(Status.INVALID, sighting.fault), now_s)
            return False
        try:
            with open_folder(self._inputs / sighting.name) as folder_fd:
                listing = list_folder(folder_fd, self._limits)
                digest = digest_of(listing.fingerprint)
                self._recognise(sighting.title, listing, digest, now_s)
                for order in listing.orders:
                    self._obey(sighting.title, order, folder_fd, now_s)
        except OSError as error:
            self._explain_unreadable(sighting.title, error, now_s)
            return False
        upload = self._uploads.get(sighting.title)
        if upload is None or upload.job.status is Status.CANCELLED:
            return False
        changed = upload.stillness is not None and upload.stillness.digest != digest
        upload.came_whole = sighting.name in arrivals or (upload.came_whole and not changed)
        upload.stillness = observe(upload.stillness, digest, clock_s)
        if changed:
            upload.verdict = None
        if upload.verdict is None:
            return True
        self._judge(upload, self._aged(upload.verdict, upload.stillness, clock_s), now_s)
        return False

    def _recognise(self, title: str, listing: Listing, digest: str, now_s: float) -> None:
        """Greet the folder as an upload, unless a claim left it: empty, or whole because it could only be copied."""
        if title in self._uploads or self._copied.get(title) == digest:
            return
        if listing.is_empty and self._is_placeholder(title):
            return
        if self._ledger.taken(title, digest):
            self._copied[title] = digest
            return
        self._meet(title, now_s)

    def _meet(self, title: str, now_s: float) -> _Upload:
        """The upload of this name, entered in the ledger at its first sight."""
        if title not in self._uploads:
            self._uploads[title] = _Upload(self._ledger.sight(title, now_s))
            self._tell(self._uploads[title].job)
        return self._uploads[title]

    def _greet(self, now_s: float) -> None:
        """Between two files of a long examination: let no new folder wait for its first status."""
        if time.monotonic() - self._greeted_s < GREET_S:
            return
        for sighting in scan(self._inputs):
            if not sighting.fault and sighting.title not in self._uploads:
                with contextlib.suppress(OSError), open_folder(self._inputs / sighting.name) as folder_fd:
                    listing = list_folder(folder_fd, self._limits)
                    self._recognise(sighting.title, listing, digest_of(listing.fingerprint), now_s)
        self._greeted_s = time.monotonic()

    def _is_placeholder(self, title: str) -> bool:
        """Did a claim leave this empty folder? It goes when its job is done, and stays for RETRY otherwise."""
        job = self._ledger.newest(title)
        if job is None or job.claimed_s is None:
            return False
        if job.status is not Status.DONE:
            self._placeholders.add(title)
            return True
        if title not in self._placeholders and self._scanned_once:
            return False
        self._placeholders.discard(title)
        self._spool.remove_placeholder(title)
        return True

    def _obey(self, title: str, order: Order, folder_fd: int, now_s: float) -> None:
        """Do what a file RETRY or CANCEL asks for, and remove it."""
        key = f"order:{title}:{order.name}"
        job = self._ledger.newest(title)
        if job is None or self._ledger.note(key) == order.identity:
            return
        act = self._ledger.retry if order.name == "RETRY" else self._ledger.cancel
        try:
            changed = act(job.id, now_s)
        except ConfigError as error:
            logger.info("{} in the folder {!r} has no effect: {}", order.name, title, error)
        else:
            logger.info("{} in the folder {!r}: the job is now {}", order.name, title, changed.status.value)
            if title in self._uploads:
                self._uploads[title] = replace(self._uploads[title], job=changed, verdict=None)
            self._tell(changed)
        if not remove_order(folder_fd, order):
            # The folder is another user's: remember this very file, so that it is obeyed once.
            self._ledger.put_note(key, order.identity)

    def _examine(self, sighting: Sighting, now_s: float, clock_s: float) -> None:
        """Examine one upload and claim it if it is complete. Nothing wrong in it may stop the others."""
        upload = self._uploads[sighting.title]
        try:
            with open_folder(self._inputs / sighting.name) as folder_fd:
                listing = list_folder(folder_fd, self._limits)
                upload.stillness = observe(upload.stillness, digest_of(listing.fingerprint), clock_s)
                verdict = self._take(upload, folder_fd, listing, now_s, clock_s)
        except OSError as error:
            self._explain_unreadable(sighting.title, error, now_s)
            return
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - an upload that trips us must not end the daemon at every start
            logger.exception("the upload {!r} could not be examined", sighting.title)
            verdict = Verdict(Status.INVALID, f"it could not be examined ({error!r}). See the daemon's log.")
        if verdict is not None and upload.stillness is not None:
            upload.verdict = verdict if verdict.lasting else None
            self._judge(upload, self._aged(verdict, upload.stillness, clock_s), now_s)

    def _take(self, upload: _Upload, folder_fd: int, listing: Listing, now_s: float, clock_s: float) -> Verdict | None:
        """Claim an upload; what stands in the way, or None once it is claimed."""
        settle_s = max(self._watch.settle_s, REMOTE_SETTLE_S if self._watcher.is_remote else 0.0)
        still = upload.came_whole or (upload.stillness is not None and is_still(upload.stillness, settle_s, clock_s))
        found = self._examiner.examine(upload.job, folder_fd, listing, still, lambda: self._greet(now_s))
        if isinstance(found, Verdict):
            return found
        try:
            job = self._spool.claim(self._ledger, found, folder_fd, now_s)
        except FileChanged:
            self._spool.discard_snapshot(upload.job.id)
            return Verdict(Status.WAITING, WRITING, lasting=False)
        if job.status.is_open:
            upload.job = job
        else:
            del self._uploads[upload.job.name]
            self._placeholders.add(upload.job.name)
        self._tell(job)
        return None

    def _aged(self, verdict: Verdict, stillness: Stillness, clock_s: float) -> Verdict:
        """An upload that waits and has been still for a long time is stalled."""
        limit_s = self._watch.stalled_after_s
        if verdict.status is not Status.WAITING or stillness.quiet_s(clock_s) < limit_s:
            return verdict
        return Verdict(Status.STALLED, f"{verdict.reason}; nothing has changed for {limit_s / 60:.0f} min")

    def _judge(self, upload: _Upload, verdict: Verdict, now_s: float) -> None:
        """Write a verdict to the ledger, if it is news."""
        if (upload.job.status, upload.job.reason) == (verdict.status, verdict.reason):
            return
        before, upload.job = upload.job, self._ledger.mark(upload.job.id, verdict.status, verdict.reason, now_s)
        if upload.job != before:
            self._tell(upload.job)

    def _explain_unreadable(self, title: str, error: OSError, now_s: float) -> None:
        """A folder that cannot be opened: gone (the next scan tells), failing hardware, or closed to us."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        if error.errno in (*STORAGE_ERRNOS, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise StorageError(f"Reading the upload {title!r} failed: {error.strerror}.") from error
        reason = f"the folder cannot be read: {error.strerror}. Make it readable: chmod -R a+rX."
        upload = self._meet(title, now_s)
        upload.verdict = None
        self._judge(upload, Verdict(Status.INVALID, reason), now_s)

    def _release_missing(self, titles: Collection[str], now_s: float) -> None:
        """Close the jobs whose folder is gone."""
        for title in [title for title in self._uploads if title not in titles]:
            job = self._uploads.pop(title).job
            self._spool.discard_snapshot(job.id)
            released = self._ledger.release(job.id, REMOVED, now_s)
            if released.status is not job.status:
                self._tell(released)

    def _tell(self, job: Job) -> None:
        logger.info("job {!r} is {}: {}", job.id, job.status.value, job.reason)
        self._on_change(job)

    def _note(self, text: str) -> None:
        """Say in the ledger why no upload is taken; nothing while all is well."""
        if text == self._noted:
            return
        if text:
            logger.warning("intake {}", text)
        with contextlib.suppress(StorageError):
            self._ledger.put_note(NOTE, text)
            self._noted = text

    def _next_wait_s(self, folders: int, scan_took_s: float, clock_s: float) -> float:
        """New folders ring the bell where events work; changes inside folders are found by looking."""
        rhythm_s = self._watch.scan_s if folders or self._watcher.mode != EVENTS else self._watch.quiet_scan_s
        rhythm_s = min(max(rhythm_s, scan_took_s / SCAN_SHARE), max(self._watch.quiet_scan_s, self._watch.scan_s))
        stills = [upload.stillness for upload in self._uploads.values() if upload.stillness is not None]
        limits_s = (self._watch.settle_s, self._watch.stalled_after_s)
        moments = (next_look_s(stillness, *limits_s, clock_s) for stillness in stills)
        return max(SHORTEST_WAIT_S, min([rhythm_s, *(moment for moment in moments if moment is not None)]))
