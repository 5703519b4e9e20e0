"""The pages of one job: every picture with before and after, its options, its seconds and the line to make it again."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import Job, LookRecord, LookResult, LookStatus, Status
from fastfit_watch.domain.look import Framing, Preset
from fastfit_watch.domain.options import OPTIONS
from fastfit_watch.reporting.gallery.cards import Entry, split_faults
from fastfit_watch.reporting.gallery.command import reproduce_command
from fastfit_watch.reporting.gallery.front_page import BUSY_S, CALM_S, FRONT_FILE
from fastfit_watch.reporting.gallery.templates import count_pictures, macros, render
from fastfit_watch.storage.spool import SpoolPaths

if TYPE_CHECKING:
    from markupsafe import Markup

PER_PAGE = 40
OPEN_JOB_S = 600  # after so long, the page of a job that is not finished says its age
_CHARACTERS = 6000  # for one picture; 40 of them leave room for the rest of a page of 300 KB
LINKED_FILES = (
    ("sheet.jpg", "Contact sheet"),
    ("status.txt", "Status"),
    ("report.json", "Report"),
    ("job.log", "Log"),
)


@dataclass(frozen=True)
class JobPage:
    """One page of a job: `records` are its looks. number: from 1 to `pages`; only the first describes the job."""

    entry: Entry
    records: Sequence[LookRecord]
    number: int
    pages: int


def page_file(number: int) -> str:
    """`index.html`, `page-2.html`, `page-3.html`..."""
    return "index.html" if number == 1 else f"page-{number}.html"


def snapshot_folder(config: Config, job: Job) -> Path:
    """The verified copies of a job's uploads, in the spool."""
    return SpoolPaths(config.inputs).snapshot(job.id)


def build_job_page(config: Config, page: JobPage, stamp: str, now_s: float) -> str:
    """The page as HTML."""
    entry, job, records = page.entry, page.entry.job, page.records
    counts = Counter(record.status for record in records)
    is_busy = job.status is Status.WAITING or any(counts[each] for each in (LookStatus.QUEUED, LookStatus.RUNNING))
    where = f" ({page.number} of {page.pages})" if page.pages > 1 else ""
    return render(
        "job.html",
        title=f"{job.id}{where}",
        stamp=stamp,
        home=f"../{FRONT_FILE}",
        now_s=now_s,
        refresh_s=BUSY_S if is_busy else CALM_S,
        renewed_s=OPEN_JOB_S if is_busy else 0,
        entry=entry,
        job=job,
        number=page.number,
        made=f"{entry.made} of {count_pictures(entry.total)} made" if entry.total else "",
        files=list(_files(entry.folder)),
        has_report=(entry.folder / "report.json").is_file(),
        states=[(status.value, counts[status]) for status in LookStatus if counts[status]],
        looks=list(dict.fromkeys(record.look.name for record in records)),
        figures=[_draw_figure(config, entry, record) for record in records],
        pages=[page_file(number) for number in range(1, page.pages + 1)],
        first=records[0].position + 1 if records else 0,
        last=records[-1].position + 1 if records else 0,
    )


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """The job's other files with the texts of the links to them."""
    yield from ((file, text) for file, text in LINKED_FILES if (folder / file).is_file())
    for number in itertools.count(2):
        file = f"sheet-{number}.jpg"
        if not (folder / file).is_file():
            return
        yield file, f"Sheet {number}"


def _draw_figure(config: Config, entry: Entry, record: LookRecord) -> Markup:
    drawing = macros("figure.html")
    if record.status is LookStatus.DONE and record.result is not None:
        parts = list(_draw_finished(config, entry, record, record.result))
        while len(parts) > 1 and sum(map(len, parts)) > _CHARACTERS:
            parts.pop()
    else:
        head, faults = split_faults(record.reason[: _CHARACTERS // 8])
        parts = [drawing.unmade(record), drawing.why(entry, record, head, faults)]
    drawn: Markup = drawing.figure(entry, record, parts[0], parts[1:])
    return drawn


def _draw_finished(config: Config, entry: Entry, record: LookRecord, result: LookResult) -> Iterator[Markup]:
    """The parts of a finished picture, the dispensable ones last."""
    drawing, options = macros("figure.html"), record.look.options
    preset = "" if options.preset is Preset.EXACT else options.preset.value
    yield drawing.compare(entry, record, options.framing is Framing.PASTE_BACK)
    yield drawing.facts(record, preset, sum(result.seconds.values()))
    yield drawing.worn(entry, record)
    yield drawing.more(record, list(_rows(record, result)), _command(config, entry.job, record))


def _rows(record: LookRecord, result: LookResult) -> Iterator[tuple[str, str]]:
    """What made the picture, as names and values."""
    look, options = record.look, record.look.options
    yield "person", look.person
    yield from ((slot.value, file) for slot, file in look.garments.items())
    yield from ((option, str(getattr(options, option))) for option in OPTIONS)
    yield "size", f"{result.width} x {result.height}"
    if "bundle" in result.versions:
        yield "weights", result.versions["bundle"]
    yield "device", result.device
    yield from ((stage, f"{seconds:.2f} s") for stage, seconds in result.seconds.items())
    if result.peak_vram_bytes is not None:
        yield "peak VRAM", f"{result.peak_vram_bytes / 2**30:.2f} GiB"
    if record.attempts > 1:
        yield "attempts", str(record.attempts)


def _command(config: Config, job: Job, record: LookRecord) -> str:
    """The line that makes the picture again; empty where its uploads are gone."""
    snapshot = snapshot_folder(config, job)
    uploads = (record.look.person, *record.look.garments.values())
    return reproduce_command(config, record, snapshot) if all((snapshot / each).is_file() for each in uploads) else ""
