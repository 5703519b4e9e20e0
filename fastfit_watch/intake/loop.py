"""Loop one: find uploads, wait until each is complete, check it, and take it into the spool.

A scan tells what is there; nothing is kept in memory that a new start could not find again. What a scan costs follows
from what changed: a folder is read again only if its times moved, or now and then as long as it may still grow. What is
found is written to the ledger in few commits.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import islice

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.intake.admission import Admission
from fastfit_watch.intake.claim import UploadClaimer
from fastfit_watch.intake.fingerprint import digest_of
from fastfit_watch.intake.scan import UploadEntry, scan
from fastfit_watch.intake.stability import observe
from fastfit_watch.intake.upload_folder import ControlFile, Listing, list_folder, remove_order
from fastfit_watch.intake.uploads import UploadTracker
from fastfit_watch.intake.validation import PictureInspector, Verdict
from fastfit_watch.intake.watcher import EVENTS, Doorbell, Watcher
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.folders import open_folder

NOTE = "intake"
REMOVED = "the folder was removed before it was complete"
# Looking around takes at most this share of the time, however many folders there are; the second, when the bell rings.
SCAN_SHARE, RUNG_SHARE = 0.005, 0.1
SHORTEST_WAIT_S = 0.05
# How often a long examination looks up to greet new folders.
GREET_S = 1.0
# Folders entered in one commit.
CHUNK = 250


class IntakeLoop:
    """`step` is one scan; `run` repeats it until told to stop.

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
        self._uploads = UploadTracker(config.watch, ledger, watcher, on_change)
        self._admission = Admission(config, self._uploads, ledger, claimer, decoder)
        self._copied: dict[str, str] = {}
        self._change_count: int | None = None
        self._moves: int | None = None
        self._scanned_once = False
        self._greeted_s = 0.0
        self._look_took_s = 0.0
        self._noted: str | None = None
        self.has_judged_all = False

    @property
    def is_behind(self) -> bool:
        """Was there more to examine than fits in one step?"""
        return self._admission.is_behind

    def run(self, stop: threading.Event) -> None:
        """Scan until `stop` is set. Ring the bell after setting it."""
        self._watcher.start()
        try:
            while not stop.is_set():
                self.wait(self.step(time.time(), time.monotonic()))
        finally:
            self._watcher.stop()

    def wait(self, wait_s: float) -> None:
        """Wait for the bell. One that rings all the time does not make us look around all the time."""
        if self._doorbell.wait(wait_s):
            time.sleep(min(self._look_took_s / RUNG_SHARE, GREET_S))

    def step(self, now_s: float, clock_s: float | None = None) -> float:
        """Do one scan and return in how many seconds the next is due.

        now_s: Unix seconds, for the ledger. clock_s: steady seconds, to tell stillness (`now_s` if not given). A full
        or failing disk is noted under "intake" in the ledger, and the next step tries again.
        """
        steady_s = now_s if clock_s is None else clock_s
        self.has_judged_all = False
        try:
            folders = self._scan(now_s, steady_s)
            self._note_pause("")
        except StorageError as error:
            self._note_pause(f"paused: {error}")
            self._start_over()
            return self._watch.scan_s
        except Exception:
            self._start_over()
            raise
        self.has_judged_all = not self.is_behind and not self._uploads.may_settle(steady_s)
        return SHORTEST_WAIT_S if self.is_behind else self._next_wait_s(folders, steady_s)

    def tidy(self) -> None:
        """At the end: take back the empty folders of jobs that were done since the last scan."""
        with contextlib.suppress(StorageError, OSError):
            self._claimer.remove_placeholders(self._ledger)

    def _scan(self, now_s: float, clock_s: float) -> int:
        """One scan; returns how many folders there are."""
        began_s = time.perf_counter()
        self._watcher.revive()
        self._refresh(now_s)
        sightings = scan(self._inputs)
        arrivals = self._watcher.take_arrivals()
        # First all the cheap looks, so that every new folder is greeted before a long examination begins.
        changed = iter([sighting for sighting in sightings if self._must_read(sighting, arrivals, clock_s)])
        while chunk := list(islice(changed, CHUNK)):
            self._process_listings(chunk, arrivals, now_s, clock_s)
        self._release_missing({sighting.title for sighting in sightings}, now_s)
        self._look_took_s = time.perf_counter() - began_s
        self._admission.work(now_s, clock_s, lambda: self._register_new(now_s))
        self._scanned_once = True
        return len(sightings)

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
            self._uploads.known.clear()
            self._start_over()
        for job in self._claimer.recover(self._ledger, now_s):
            self._change_count = None
            self._uploads.queue_event(job)
        self._uploads.publish_events()
        if not self._scanned_once:
            self._claimer.sweep(self._ledger)
        moves = self._ledger.database.job_version()
        if moves != self._moves:
            self._claimer.remove_placeholders(self._ledger)
            self._moves = moves
        count = self._ledger.database.external_version()
        if count != self._change_count:
            self._change_count = count
            self._uploads.reload()

    def _start_over(self) -> None:
        """Find again what could not be written down."""
        self._uploads.drop_events()
        self._admission.due.clear()
        self._change_count = self._moves = None

    def _must_read(self, sighting: UploadEntry, arrivals: Collection[str], clock_s: float) -> bool:
        """Can anything be new in this folder?"""
        title, folder_times = sighting.title, self._uploads.folder_times
        if folder_times.is_changed(title, sighting.stamp, clock_s) or sighting.name in arrivals:
            return True
        upload = self._uploads.known.get(title)
        if upload is None:
            # An empty folder cannot change without its times; one that had to stay when it was taken can.
            return title in self._copied and folder_times.is_due(title, float("inf"), len(self._copied), clock_s)
        if upload.job.status is Status.CANCELLED or sighting.fault:
            return False
        if upload.stillness is None or self._uploads.is_settled(upload, clock_s):
            return True
        return folder_times.is_due(title, upload.stillness.quiet_s(clock_s), len(self._uploads.known), clock_s)

    def _process_listings(
        self, chunk: Sequence[UploadEntry], arrivals: Collection[str], now_s: float, clock_s: float
    ) -> None:
        """Take in what some folders hold, without reading any file, and find those that must be examined."""
        listings: list[tuple[UploadEntry, Listing]] = []
        for sighting in chunk:
            self._uploads.folder_times.note_read(sighting.title, sighting.stamp, clock_s)
            if not sighting.fault and (listing := self._list(sighting, now_s)) is not None:
                listings.append((sighting, listing))
        with self._uploads.together():
            for sighting in chunk:
                if sighting.fault:
                    upload = self._uploads.register(sighting.title, now_s)
                    self._uploads.apply_verdict(upload, Verdict(Status.INVALID, sighting.fault), clock_s, now_s)
            for sighting, listing in listings:
                self._register_unless_placeholder(sighting, listing, now_s)
        for sighting, listing in listings:
            for order in listing.orders:
                self._apply_control_file(sighting, listing, order, now_s)
        with self._uploads.together():
            for sighting, listing in listings:
                if self._is_due(sighting, listing, sighting.name in arrivals, now_s, clock_s):
                    self._admission.due[sighting.title] = sighting

    def _list(self, sighting: UploadEntry, now_s: float) -> Listing | None:
        try:
            with open_folder(self._inputs / sighting.name) as folder_fd:
                return list_folder(folder_fd, self._limits)
        except OSError as error:
            self._uploads.explain_unreadable(sighting.title, error, now_s)
            return None

    def _register_unless_placeholder(self, sighting: UploadEntry, listing: Listing, now_s: float) -> None:
        """Greet the folder as an upload, unless a claim left it: empty, or whole because it could only be copied."""
        title = sighting.title
        if title in self._uploads.known or (listing.is_empty and self._is_placeholder(sighting, listing)):
            return
        digest = digest_of(listing.fingerprint)
        if self._copied.get(title) == digest:
            return
        if self._ledger.was_claimed_by_copy(title, digest):
            self._copied[title] = digest
            return
        self._uploads.register(title, now_s)

    def _is_due(self, sighting: UploadEntry, listing: Listing, came_whole: bool, now_s: float, clock_s: float) -> bool:
        """Must this upload be examined? If not, its last verdict is given once more: it may have aged."""
        upload = self._uploads.known.get(sighting.title)
        if upload is None or upload.job.status is Status.CANCELLED:
            return False
        digest = digest_of(listing.fingerprint)
        changed = upload.stillness is not None and upload.stillness.digest != digest
        upload.came_whole = came_whole or (upload.came_whole and not changed)
        upload.stillness = observe(upload.stillness, digest, clock_s)
        upload.news_s = clock_s if upload.news_s is None else upload.news_s
        if changed:
            upload.verdict, upload.has_changed = None, True
        verdict = upload.verdict
        if verdict is None or self._uploads.is_settled(upload, clock_s):
            return True
        if not (verdict.lasting or verdict.until_still):
            return True
        self._uploads.apply_verdict(upload, verdict, clock_s, now_s)
        return False

    def _register_new(self, now_s: float) -> None:
        """Between two files of a long examination: let no new folder wait for its first status."""
        if time.monotonic() - self._greeted_s < max(GREET_S, self._look_took_s / RUNG_SHARE):
            return
        unknown = (
            sighting
            for sighting in scan(self._inputs)
            if not sighting.fault
            and sighting.title not in self._uploads.folder_times
            and sighting.title not in self._uploads.known
        )
        with self._uploads.together():
            for sighting in islice(unknown, CHUNK):
                with contextlib.suppress(OSError), open_folder(self._inputs / sighting.name) as folder_fd:
                    self._register_unless_placeholder(sighting, list_folder(folder_fd, self._limits), now_s)
        self._greeted_s = time.monotonic()

    def _is_placeholder(self, sighting: UploadEntry, listing: Listing) -> bool:
        """Did a claim leave this empty folder? It goes when its job is done, and stays for RETRY otherwise."""
        job = self._ledger.newest_job_named(sighting.title)
        if job is None or job.claimed_s is None:
            return False
        if job.status is not Status.DONE or listing.orders:
            return True  # someone may have tidied up, and made the folder again to put an order in it
        return self._ledger.retention.is_placeholder(sighting.title, sighting.stamp[0])

    def _apply_control_file(self, sighting: UploadEntry, listing: Listing, order: ControlFile, now_s: float) -> None:
        """Do what a file RETRY or CANCEL asks for, and remove it."""
        title = sighting.title
        key = f"order:{title}:{order.name}"
        job = self._ledger.newest_job_named(title)
        if job is None or self._ledger.note(key) == order.identity:
            return
        requests = self._ledger.requests
        act = requests.retry if order.name == "RETRY" else requests.cancel
        try:
            changed = act(job.id, now_s)
        except ConfigError as error:
            logger.bind(job=job.id).info("{} in the folder {!r} has no effect: {}", order.name, title, error)
        else:
            log = logger.bind(job=job.id)
            log.info("{} in the folder {!r}: the job is now {}", order.name, title, changed.status.value)
            if title in self._uploads.known:
                self._uploads.known[title] = replace(self._uploads.known[title], job=changed, verdict=None)
            self._uploads.queue_event(changed)
            self._uploads.publish_events()
        if listing.is_empty and job.claimed_s is not None:
            # Without the order it is an empty folder again. One of a job that is done by now would pass for an upload.
            self._ledger.retention.take_placeholder(job.id, sighting.stamp[0])
            self._moves = None
        try:
            with open_folder(self._inputs / sighting.name) as folder_fd:
                removed = remove_order(folder_fd, order)
        except OSError as error:
            self._uploads.explain_unreadable(title, error, now_s)
            return
        if not removed:
            # The folder is another user's: remember this very file, so that it is obeyed once.
            self._ledger.put_note(key, order.identity)

    def _release_missing(self, titles: Collection[str], now_s: float) -> None:
        """Close the jobs whose folder is gone."""
        missing = iter([title for title in self._uploads.known if title not in titles])
        while chunk := list(islice(missing, CHUNK)):
            for title in chunk:
                self._claimer.discard_snapshot(self._uploads.known[title].job.id)
            with self._uploads.together():
                self._uploads.release(chunk, REMOVED, now_s)
        if len(self._uploads.folder_times) > len(titles):
            self._uploads.folder_times.keep_only(titles)
            self._copied = {title: digest for title, digest in self._copied.items() if title in titles}

    def _note_pause(self, text: str) -> None:
        """Say in the ledger why no upload is taken; nothing while all is well."""
        if text == self._noted:
            return
        if text:
            logger.warning("intake {}", text)
        with contextlib.suppress(StorageError):
            self._ledger.put_note(NOTE, text)
            self._noted = text

    def _next_wait_s(self, folders: int, clock_s: float) -> float:
        """New folders ring the bell where events work; changes inside folders are found by looking."""
        rhythm_s = self._watch.scan_s if folders or self._watcher.mode != EVENTS else self._watch.quiet_scan_s
        longest_s = max(self._watch.quiet_scan_s, self._watch.scan_s)
        rhythm_s = min(max(rhythm_s, self._look_took_s / SCAN_SHARE), longest_s)
        moment_s = self._uploads.next_moment_s(clock_s)
        return max(SHORTEST_WAIT_S, rhythm_s if moment_s is None else min(rhythm_s, moment_s))
