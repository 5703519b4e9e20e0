"""Keeps the gallery up to date: of thousands of pages, only those are written whose jobs have changed.

The pages are derived from the ledger and may be removed at any time: a page carries a stamp of what it shows, and one
that is stale or missing at the start is written again. The front page comes last, so that its links lead somewhere.
"""

from __future__ import annotations

import hashlib
import queue
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import FastFitError, StorageError
from fastfit_watch.domain.job import Job, LookProgress, LookRecord, LookStatus, Status
from fastfit_watch.reporting.gallery.cards import TROUBLED, Entry, draw_card
from fastfit_watch.reporting.gallery.front_page import (
    ARCHIVE_FOLDER,
    ARCHIVE_SIZE,
    FRONT_EVERY_S,
    FRONT_FILE,
    ArchivePage,
    FrontPage,
    archive_file,
    build_archive_page,
    build_front_page,
)
from fastfit_watch.reporting.gallery.job_page import (
    LINKED_FILES,
    PER_PAGE,
    JobPage,
    build_job_page,
    page_file,
    snapshot_folder,
)
from fastfit_watch.reporting.gallery.templates import edition, link, read_stamp
from fastfit_watch.reporting.gallery.thumbs import THUMBS, ThumbSize, make_thumb
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.queries import (
    Shelf,
    jobs_on_shelf,
    look_marks,
    look_names,
    newest_jobs,
    read_shelves,
    some_looks,
    some_pictures,
)
from fastfit_watch.system.atomic_write import make_folder, remove_temporaries, write_text

if TYPE_CHECKING:
    from markupsafe import Markup

_HEAD_BYTES = 400
_PROGRESS_EVERY_S = 5.0
_AGAIN_S = 60.0
_KEPT = 400  # cards and what they show, kept in memory
_PICTURES = 8
_NAMES = 30


class Gallery:
    """The gallery in `outputs/`. `publish` is for one thread, `note_report` for any."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._config, self._ledger = config, ledger
        self._moves: int | None = None
        self._progress: Mapping[str, LookProgress] = {}
        self._progress_shown_s = float("-inf")
        self._halt = ""
        self._front_written_s = 0.0
        self._archive: list[Shelf] = []
        self._archive_stamps: dict[int, str] = {}
        self._job_stamps: dict[str, str] = {}
        self._page_stamps: dict[Path, str] = {}
        self._entries: dict[tuple[str, str], tuple[str, Entry]] = {}
        self._cards: dict[tuple[str, str], tuple[Entry, int, Markup]] = {}
        self._reported: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._again_s: dict[str, float] = {}
        self._troubles: list[str] = []
        self._deadline_s = 0.0

    def note_report(self, job_id: str) -> None:
        """The report and the contact sheet of this job are on disk: its page links to them from now on."""
        self._reported.put(job_id)

    def publish(self, progress: Mapping[str, LookProgress], halt: str, budget_s: float) -> bool:
        """Write what has changed since the last call, for about `budget_s` seconds; returns whether all is written.

        progress: the look in hand of each job. halt: why nothing is made, or empty. Raises StorageError when the disk
        is full or failing, and FastFitError for the first job whose pages could not be written, after all others were.
        """
        began_s = time.monotonic()
        self._deadline_s = began_s + budget_s
        moves = self._ledger.database.job_version()
        moved = progress != self._progress and began_s - self._progress_shown_s >= _PROGRESS_EVERY_S
        is_there = (self._config.outputs / FRONT_FILE).is_file()
        is_news = moves != self._moves or halt != self._halt or moved or not self._reported.empty()
        if is_there and not is_news:
            if began_s - self._front_written_s >= FRONT_EVERY_S:
                self._write_front(halt)
            return True
        self._troubles.clear()
        make_folder(self._config.outputs / ARCHIVE_FOLDER)
        self._refresh_reported()
        if progress != self._progress:
            self._progress, self._progress_shown_s = dict(progress), began_s
            self._refresh_progress()
        self._archive = read_shelves(self._ledger, ARCHIVE_SIZE)
        left = [index for index in reversed(range(len(self._archive))) if not self._refresh_archive(index)]
        self._write_front(halt)
        self._moves, self._halt = (None if left else moves), halt
        if self._troubles:
            raise FastFitError(self._troubles[0])
        return not left

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline_s

    # Jobs

    def _refresh_reported(self) -> None:
        while not self._reported.empty():
            job = self._ledger.job(self._reported.get())
            if job is not None:
                self._job_stamps.pop(job.id, None)
                self._refresh_job(job)

    def _refresh_progress(self) -> None:
        for job_id in self._progress:
            job = self._ledger.job(job_id)
            if job is not None and job.status is Status.RUNNING:
                self._page_stamps[self._page_path(job.id, 1)] = ""
                self._refresh_job(job)

    def _refresh_job(self, job: Job) -> bool:
        """Bring the pages of one job up to date; False if there is something left to do."""
        if time.monotonic() < self._again_s.get(job.id, 0.0):
            return False
        try:
            finished = self._write_job(job)
        except StorageError:
            raise
        except (FastFitError, OSError) as error:
            self._again_s[job.id] = time.monotonic() + _AGAIN_S
            self._troubles.append(f"the pages of {job.id!r}: {error}")
            return False
        if finished:
            self._job_stamps[job.id] = self._stamp_of(job)
            self._entries.pop((job.id, _from_front(job)), None)
            self._entries.pop((job.id, _from_archive(job)), None)
        return finished

    def _write_job(self, job: Job) -> bool:
        """Write those pages of a job that are stale, the first one last; False if time ran out."""
        folder = self._config.outputs / job.id
        if job.status.is_final and not (job.has_results and folder.is_dir()):
            return True  # somebody took the results away: they do not come back as an empty page
        for place in (folder, folder / THUMBS):
            remove_temporaries(place, but_living=True)
        if self._is_written(job):
            return True
        marks = look_marks(self._ledger, job.id, PER_PAGE) or [""]
        make_folder(folder)
        for number in reversed(range(1, len(marks) + 1)):
            stamp = f"{edition()}:{marks[number - 1]}:{len(marks)}"
            if number == 1:
                stamp = f"{self._stamp_of(job)}:{len(marks)}"
            if self._stamp_on(self._page_path(job.id, number)) == stamp:
                continue
            if self._is_late():
                return False
            records = some_looks(self._ledger, job.id, (number - 1) * PER_PAGE, PER_PAGE)
            self._make_thumbs(job, folder, records)
            page = JobPage(self._entry(job, ""), records, number, len(marks))
            self._write(self._page_path(job.id, number), build_job_page(self._config, page, stamp, time.time()), stamp)
        return True

    def _is_written(self, job: Job) -> bool:
        """Are all pages of the job there, and the first one, which is written last, as the job is now?"""
        stamp, _, pages = self._stamp_on(self._page_path(job.id, 1)).rpartition(":")
        if stamp != self._stamp_of(job):
            return False
        return all(self._page_path(job.id, number).is_file() for number in range(2, int(pages) + 1))

    def _stamp_of(self, job: Job) -> str:
        """Differs whenever the job has, or its files that a page links to have come or gone."""
        files = [(self._config.outputs / job.id / name).is_file() for name, _ in LINKED_FILES]
        facts = repr((job.status, job.reason, job.changed_s, job.finished_s, job.has_upload, job.has_results, files))
        return f"{edition()}:{hashlib.sha256(facts.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"

    def _page_path(self, job_id: str, number: int) -> Path:
        return self._config.outputs / job_id / page_file(number)

    def _make_thumbs(self, job: Job, folder: Path, records: Sequence[LookRecord]) -> None:
        snapshot = snapshot_folder(self._config, job)
        for record in records:
            person = record.look.person
            make_thumb(snapshot / person, folder, job.files.get(person, person), ThumbSize.PICTURE)
            for file in record.look.garments.values():
                make_thumb(snapshot / file, folder, job.files.get(file, file), ThumbSize.GARMENT)
            if record.status is LookStatus.DONE and record.result is not None:
                make_thumb(folder / record.result.file, folder, record.result.sha256, ThumbSize.PICTURE)

    # The archive and the front page

    def _refresh_archive(self, index: int) -> bool:
        """Bring a page of the archive and those of its jobs up to date; False if there is something left to do."""
        part = self._archive[index]
        newer = self._archive[index + 1].number if index + 1 < len(self._archive) else None
        older = self._archive[index - 1].number if index else None
        stamp = f"{edition()}:{part.mark}:{older}:{newer}"
        if self._archive_stamps.get(part.number) == stamp:
            return True
        if self._is_late():
            return False
        jobs = jobs_on_shelf(self._ledger, part.number, ARCHIVE_SIZE)
        stale = [job for job in jobs if self._job_stamps.get(job.id) != self._stamp_of(job)]
        left = [job for job in stale if self._is_late() or not self._refresh_job(job)]
        if left and self._is_late():
            return False
        path = self._config.outputs / ARCHIVE_FOLDER / archive_file(part.number)
        if self._stamp_on(path) != stamp:
            entries = [self._entry(job, _from_archive(job)) for job in jobs]
            page = ArchivePage(part, entries, newer, older)
            self._write(path, build_archive_page(page, self._draw, stamp, time.time()), stamp)
        if not left:
            self._archive_stamps[part.number] = stamp
        return not left

    def _write_front(self, halt: str) -> None:
        def entries(jobs: Sequence[Job]) -> list[Entry]:
            return [self._entry(job, _from_front(job)) for job in jobs]

        front = FrontPage(
            running=entries(newest_jobs(self._ledger, (Status.RUNNING,), 8)),
            queued=entries([job for job in self._ledger.jobs_in_turn(30) if job.status is Status.QUEUED][:10]),
            troubled=entries(newest_jobs(self._ledger, TROUBLED, 10)),
            waiting=entries(newest_jobs(self._ledger, (Status.WAITING,), 6)),
            newest=entries(newest_jobs(self._ledger, (Status.DONE, Status.CANCELLED), 16)),
            counts=self._ledger.counts(),
            archive=self._archive,
            halt=halt,
        )
        write_text(self._config.outputs / FRONT_FILE, build_front_page(front, self._draw, time.time()))
        self._front_written_s = time.monotonic()

    def _entry(self, job: Job, base: str) -> Entry:
        """What a page shows of a job; read again only when the job has changed."""
        progress = (
            None if base == _from_archive(job) or job.status is not Status.RUNNING else self._progress.get(job.id)
        )
        key = f"{self._stamp_of(job)}:{progress}"
        known = self._entries.get((job.id, base))
        if known is not None and known[0] == key:
            return known[1]
        tallies = self._ledger.tallies([job.id]).get(job.id, {})
        counts = {status: tally.looks for status, tally in tallies.items()}
        entry = Entry(
            job=job,
            folder=self._config.outputs / job.id,
            base=base,
            made=counts.get(LookStatus.DONE, 0),
            total=sum(counts.values()),
            withheld=counts.get(LookStatus.WITHHELD, 0),
            pictures=some_pictures(self._ledger, job.id, _PICTURES, newest=not job.status.is_final),
            looks=look_names(self._ledger, job.id, _NAMES),
            progress=progress,
        )
        if len(self._entries) >= _KEPT:
            self._entries.clear()
            self._cards.clear()
        if base:
            self._entries[job.id, base] = key, entry
        return entry

    def _draw(self, entry: Entry, most: int) -> Markup:
        """A card; drawn again only when what it shows has changed."""
        known = self._cards.get((entry.job.id, entry.base))
        if known is not None and known[0] is entry and known[1] == most:
            return known[2]
        drawn = draw_card(entry, most)
        self._cards[entry.job.id, entry.base] = entry, most, drawn
        return drawn

    # Files

    def _stamp_on(self, path: Path) -> str:
        """The stamp of a page on disk; empty where there is none."""
        if path not in self._page_stamps:
            try:
                with path.open("rb") as file:
                    self._page_stamps[path] = read_stamp(file.read(_HEAD_BYTES)) or ""
            except OSError:
                return ""
        return self._page_stamps[path]

    def _write(self, path: Path, page: str, stamp: str) -> None:
        write_text(path, page)
        self._page_stamps[path] = stamp


def _from_front(job: Job) -> str:
    return f"{link(job.id)}/"


def _from_archive(job: Job) -> str:
    return f"../{link(job.id)}/"
