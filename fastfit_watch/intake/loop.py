"""Loop one: find uploads, wait until each is complete, validate it, and claim it into the spool.

A scan tells what is there; nothing is kept in memory that a new start could not find again. What a scan costs follows
from what changed: a folder is read again only if its times moved, or now and then as long as it may still grow. What is
found is written to the ledger in few commits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.intake.admission import Admission
from fastfit_watch.intake.claim import UploadClaimer
from fastfit_watch.intake.claimed_folders import ClaimedFolders
from fastfit_watch.intake.control_files import ControlFiles
from fastfit_watch.intake.fingerprint import digest_of
from fastfit_watch.intake.folder_times import FolderTimes
from fastfit_watch.intake.loose_file_note import LooseFileNote
from fastfit_watch.intake.review import Verdict
from fastfit_watch.intake.scan import UploadEntry, scan
from fastfit_watch.intake.upload_folder import Listing, list_folder
from fastfit_watch.intake.uploads import UploadTracker
from fastfit_watch.intake.validation import PictureInspector
from fastfit_watch.intake.watcher import EVENTS, Doorbell, Watcher
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.folders import open_folder

NOTE = "intake"
REMOVED = "the folder was removed before it was complete"
# Scans take at most this share of the time, however many folders there are; the second, when the bell rings.
SCAN_SHARE, RUNG_SHARE = 0.005, 0.1
SHORTEST_WAIT_S = 0.05
# How often a long validation is interrupted to register new folders.
REGISTER_S = 1.0
# Folders entered in one commit.
CHUNK = 250
_T = TypeVar("_T")


class IntakeLoop:
    """`step` is one turn: scan, stability, validation, claims.

    on_change is called with a job after every change of its state or reason. has_judged_all: the last step left no
    upload that needs only a little more time to be taken.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        claimer: UploadClaimer,
        decoder: PictureInspector,
        watcher: Watcher,
        doorbell: Doorbell,
        on_change: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._inputs, self._limits, self._watch = config.inputs, config.limits, config.watch
        self._ledger, self._claimer, self._watcher, self._doorbell = ledger, claimer, watcher, doorbell
        self._folder_times = FolderTimes()
        self._claimed_folders = ClaimedFolders(ledger)
        self._uploads = UploadTracker(config.watch, ledger, watcher, self._folder_times, on_change)
        self._loose_files = LooseFileNote(ledger, config.watch.settle_s)
        self._control_files = ControlFiles(config.inputs, ledger, self._uploads)
        self._admission = Admission(config, self._uploads, ledger, claimer, decoder)
        self._external_version: int | None = None
        self._job_version: int | None = None
        self._has_scanned = False
        self._registered_s = 0.0
        self._scan_took_s = 0.0
        self._noted_pause: str | None = None
        self.has_judged_all = False

    def wait(self, wait_s: float) -> None:
        """Wait for the bell. One that rings all the time does not make us scan all the time."""
        if self._doorbell.wait(wait_s):
            time.sleep(min(self._scan_took_s / RUNG_SHARE, REGISTER_S))

    def step(self, now_s: float, clock_s: float | None = None) -> float:
        """Take one turn and return in how many seconds the next is due.

        now_s: Unix seconds, for the ledger. clock_s: steady seconds, to tell stillness (`now_s` if not given). A full
        or failing disk is noted under "intake" in the ledger, and the next step tries again.
        """
        steady_s = now_s if clock_s is None else clock_s
        self.has_judged_all = False
        try:
            folders = self._turn(now_s, steady_s)
            self._note_pause("")
        except StorageError as error:
            self._note_pause(f"paused: {error}")
            self._start_over()
            return self._watch.scan_s
        except Exception:
            self._start_over()
            raise
        is_behind = self._admission.is_behind
        self.has_judged_all = not is_behind and not self._uploads.may_settle(steady_s)
        return SHORTEST_WAIT_S if is_behind else self._next_wait_s(folders, steady_s)

    def tidy(self) -> None:
        """At the end: take back the empty folders of jobs that were done since the last scan."""
        with contextlib.suppress(StorageError, OSError):
            self._claimer.remove_placeholders(self._ledger)

    def _turn(self, now_s: float, clock_s: float) -> int:
        """Take one turn; returns how many folders there are."""
        began_s = time.perf_counter()
        self._watcher.revive()
        self._refresh(now_s)
        found = scan(self._inputs)
        self._loose_files.update(found.loose, clock_s)
        entries = found.uploads
        arrivals = self._watcher.take_arrivals()
        # First all that is cheap, so that every new folder is registered before a long validation begins.
        for chunk in _chunks([entry for entry in entries if self._must_read(entry, arrivals, clock_s)]):
            listings = self._read(chunk, now_s, clock_s)
            self._register(chunk, listings, now_s, clock_s)
            self._apply_control_files(listings, now_s)
            self._observe(listings, arrivals, now_s, clock_s)
        self._close_missing({entry.name for entry in entries}, now_s)
        self._scan_took_s = time.perf_counter() - began_s
        self._admission.work(now_s, clock_s, lambda: self._register_new(now_s))
        self._has_scanned = True
        return len(entries)

    def _refresh(self, now_s: float) -> None:
        """Make sure of the spool, finish interrupted claims, and learn what others wrote to the ledger."""
        if not self._inputs.is_dir():
            raise StorageError(f"The folder {self._inputs} is gone.", hint="Make it again, or mount it.")
        if not self._claimer.spool.is_ours():
            try:
                self._claimer.spool.lock()
            except ConfigError as error:
                raise StorageError(error.message, hint=error.hint) from error
            logger.warning(
                "{} is another folder now (made again, or a disk was mounted or unmounted): its own queue counts.",
                self._inputs,
            )
            self._uploads.clear()
            self._start_over()
        for job in self._claimer.recover(self._ledger, now_s):
            self._external_version = None
            self._uploads.queue_event(job)
        self._uploads.publish_events()
        if not self._has_scanned:
            self._claimer.sweep(self._ledger)
        job_version = self._ledger.database.job_version()
        if job_version != self._job_version:
            self._claimer.remove_placeholders(self._ledger)
            self._job_version = job_version
        external_version = self._ledger.database.external_version()
        if external_version != self._external_version:
            self._external_version = external_version
            self._uploads.reload()

    def _start_over(self) -> None:
        """Find again what could not be written down."""
        self._uploads.drop_events()
        self._admission.clear()
        self._external_version = self._job_version = None

    # Scan

    def _must_read(self, entry: UploadEntry, arrivals: Collection[str], clock_s: float) -> bool:
        """Can anything be new in this folder?"""
        if self._folder_times.is_changed(entry.name, entry.stamp, clock_s) or entry.disk_name in arrivals:
            return True
        upload = self._uploads.find(entry.name)
        if upload is None:
            # An empty folder cannot change without its times; one that had to stay when it was claimed can.
            copied = self._claimed_folders
            return entry.name in copied and self._folder_times.is_due(entry.name, float("inf"), len(copied), clock_s)
        if upload.job.status is Status.CANCELLED or entry.fault:
            return False
        if upload.stillness is None or self._uploads.has_settled(upload, clock_s):
            return True
        return self._folder_times.is_due(entry.name, upload.stillness.quiet_s(clock_s), len(self._uploads), clock_s)

    def _read(self, chunk: Sequence[UploadEntry], now_s: float, clock_s: float) -> list[tuple[UploadEntry, Listing]]:
        """List the folders that can be uploads, without reading any file."""
        listings: list[tuple[UploadEntry, Listing]] = []
        for entry in chunk:
            self._folder_times.note_read(entry.name, entry.stamp, clock_s)
            if entry.fault:
                continue
            try:
                with open_folder(self._inputs / entry.disk_name) as folder_fd:
                    listings.append((entry, list_folder(folder_fd, self._limits)))
            except OSError as error:
                self._uploads.explain_unreadable(entry.name, error, now_s)
        return listings

    def _register(
        self,
        chunk: Sequence[UploadEntry],
        listings: Sequence[tuple[UploadEntry, Listing]],
        now_s: float,
        clock_s: float,
    ) -> None:
        """Enter new uploads in the ledger, and what is wrong with the names of some."""
        with self._uploads.one_commit():
            for entry in chunk:
                if entry.fault:
                    upload = self._uploads.register(entry.name, now_s)
                    self._uploads.apply_verdict(upload, Verdict(Status.INVALID, entry.fault), clock_s, now_s)
            for entry, listing in listings:
                self._register_one(entry, listing, now_s)

    def _register_one(self, entry: UploadEntry, listing: Listing, now_s: float) -> None:
        if self._uploads.find(entry.name) is None and not self._claimed_folders.recognise(entry, listing):
            self._uploads.register(entry.name, now_s)

    def _register_new(self, now_s: float) -> None:
        """Between two files of a long validation: let no new folder wait for its first status."""
        if time.monotonic() - self._registered_s < max(REGISTER_S, self._scan_took_s / RUNG_SHARE):
            return
        unknown = (
            entry
            for entry in scan(self._inputs).uploads
            if not entry.fault and entry.name not in self._folder_times and self._uploads.find(entry.name) is None
        )
        with self._uploads.one_commit():
            for entry in islice(unknown, CHUNK):
                with contextlib.suppress(OSError), open_folder(self._inputs / entry.disk_name) as folder_fd:
                    self._register_one(entry, list_folder(folder_fd, self._limits), now_s)
        self._registered_s = time.monotonic()

    def _apply_control_files(self, listings: Sequence[tuple[UploadEntry, Listing]], now_s: float) -> None:
        for entry, listing in listings:
            if self._control_files.apply(entry, listing, now_s):
                self._job_version = None  # the next turn takes the empty folder back if its job is done

    def _close_missing(self, names: Collection[str], now_s: float) -> None:
        """Close the jobs whose folder is gone."""
        for chunk in _chunks([name for name in self._uploads.names() if name not in names]):
            for name in chunk:
                if (upload := self._uploads.find(name)) is not None:
                    self._claimer.discard_snapshot(upload.job.id)
            with self._uploads.one_commit():
                self._uploads.close_missing(chunk, REMOVED, now_s)
        if len(self._folder_times) > len(names):
            self._folder_times.keep_only(names)
            self._claimed_folders.keep_only(names)

    # Stability

    def _observe(
        self,
        listings: Sequence[tuple[UploadEntry, Listing]],
        arrivals: Collection[str],
        now_s: float,
        clock_s: float,
    ) -> None:
        """Note what the uploads hold now, and pass on those that must be validated.

        For the others the last verdict is applied once more: it may have aged.
        """
        with self._uploads.one_commit():
            for entry, listing in listings:
                upload = self._uploads.find(entry.name)
                if upload is None or upload.job.status is Status.CANCELLED:
                    continue
                arrived_whole = entry.disk_name in arrivals
                self._uploads.observe(upload, digest_of(listing.fingerprint), clock_s, arrived_whole=arrived_whole)
                if self._uploads.must_validate(upload, clock_s):
                    self._admission.add(entry)
                elif upload.verdict is not None:
                    self._uploads.apply_verdict(upload, upload.verdict, clock_s, now_s)

    # Waiting

    def _note_pause(self, text: str) -> None:
        """Note in the ledger why no upload is taken; nothing while all is well."""
        if text == self._noted_pause:
            return
        if text:
            logger.warning("intake {}", text)
        with contextlib.suppress(StorageError):
            self._ledger.put_note(NOTE, text)
            self._noted_pause = text

    def _next_wait_s(self, folders: int, clock_s: float) -> float:
        """New folders ring the bell where events work; changes inside folders are found by scans."""
        rhythm_s = self._watch.scan_s if folders or self._watcher.mode != EVENTS else self._watch.quiet_scan_s
        longest_s = max(self._watch.quiet_scan_s, self._watch.scan_s)
        rhythm_s = min(max(rhythm_s, self._scan_took_s / SCAN_SHARE), longest_s)
        moment_s = self._uploads.next_moment_s(clock_s)
        return max(SHORTEST_WAIT_S, rhythm_s if moment_s is None else min(rhythm_s, moment_s))


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
