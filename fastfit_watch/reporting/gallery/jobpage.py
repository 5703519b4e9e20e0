"""The pages of one job: every picture with before and after, its options, its seconds and the line to make it again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import Job, LookRecord, LookResult, LookStatus, Status
from fastfit_watch.domain.look import Framing, Preset
from fastfit_watch.domain.options import OPTIONS
from fastfit_watch.domain.text import duration
from fastfit_watch.reporting.gallery import frame
from fastfit_watch.reporting.gallery.cards import (
    Entry,
    caption,
    moment,
    pictures,
    progress_bar,
    progress_line,
    reason,
    remedy,
    result_picture,
    review,
    small_picture,
    state,
    word,
    worn,
)
from fastfit_watch.reporting.gallery.command import reproduce_command
from fastfit_watch.reporting.gallery.markup import Markup, element, join, link, name
from fastfit_watch.storage.spool import SpoolPaths

PER_PAGE = 40
_ROOM = 6000  # bytes for one picture; 40 of them leave room for the rest of a page of 300 KB
LINKED_FILES = (
    ("sheet.jpg", "Contact sheet"),
    ("status.txt", "Status"),
    ("report.json", "Report"),
    ("job.log", "Log"),
)


@dataclass(frozen=True)
class JobPage:
    """One page of a job: `records` are its looks. number: from 1 to `pages`; only the first tells how the job is."""

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
    job = page.entry.job
    figures = element(
        "ul",
        (_figure(config, page.entry, record) for record in page.records),
        id="pictures",
        class_="figures",
        data_list=True,
    )
    parts: list[Markup | None] = [_head(page) if page.number == 1 else _short_head(page)]
    if page.records:
        parts += [_filters(page), _extent(page), frame.nothing_matches(), figures, _pager(page)]
    where = f" ({page.number} of {page.pages})" if page.pages > 1 else ""
    pending = any(record.status in (LookStatus.QUEUED, LookStatus.RUNNING) for record in page.records)
    busy = pending or job.status is Status.WAITING
    return frame.page(f"{job.id}{where}", stamp, "../index.html", join(parts), now_s, busy=busy)


def _head(page: JobPage) -> Markup:
    job, entry = page.entry.job, page.entry
    facts: list[Markup] = [state(job.status)]
    made = f"{entry.made} of {pictures(entry.total)} made" if entry.total else ""
    if made:
        facts.append(element("span", made))
    if job.started_s is not None and job.finished_s is not None:
        facts.append(element("span", duration(job.finished_s - job.started_s)))
    facts.append(element("span", "first seen ", moment(job.first_seen_s)))
    files = [element("a", text, href=file) for file, text in LINKED_FILES if (entry.folder / file).is_file()]
    more = itertools.takewhile(lambda number: (entry.folder / f"sheet-{number}.jpg").is_file(), itertools.count(2))
    files += [element("a", f"Sheet {number}", href=f"sheet-{number}.jpg") for number in more]
    parts: list[Markup | None] = [
        element("h1", name(job.id), id="job-name"),
        element("p", facts, class_="facts"),
        progress_bar(entry, "job") if entry.total and not job.status.is_final else None,
        element("p", progress_line(entry.progress), class_="faint") if entry.progress else None,
        None if entry.total and (entry.made == entry.total or job.reason == made) else reason(job.reason),
        remedy(job),
        review(entry),
        element("nav", files, class_="files", aria_label="Files of this job") if files else None,
    ]
    return element("header", parts, class_="title", id="title")


def _short_head(page: JobPage) -> Markup:
    back = element("a", "All about this job", href=page_file(1))
    parts = (element("h1", name(page.entry.job.id), id="job-name"), element("p", back, class_="facts"))
    return element("header", parts, class_="title", id="title")


def _filters(page: JobPage) -> Markup:
    here: dict[str, int] = {}
    for record in page.records:
        here[record.status.value] = here.get(record.status.value, 0) + 1
    states = [(status.value, word(status), here[status.value]) for status in LookStatus if status.value in here]
    looks = list(dict.fromkeys(record.look.name for record in page.records))
    return frame.filters(states, looks, len(page.records))


def _figure(config: Config, entry: Entry, record: LookRecord) -> Markup:
    anchor = f"look-{record.position}"
    head = element("h2", caption(record), class_="who", id=f"{anchor}-name")
    if record.status is LookStatus.DONE and record.result is not None:
        parts = list(_finished(config, entry, record, record.result, anchor))
        while len(parts) > 1 and sum(map(len, parts)) > _ROOM:
            parts.pop()
    else:
        parts = [element("div", state(record.status), class_="unmade")]
        if record.reason:
            parts.append(reason(record.reason[: _ROOM // 8]))
        parts.append(worn(entry, record, person=True))
    return element(
        "li",
        element("article", parts[:1], head, parts[1:], aria_labelledby=f"{anchor}-name"),
        class_="figure",
        id=anchor,
        data_item=True,
        data_state=record.status.value,
        data_look=record.look.name,
    )


def _finished(config: Config, entry: Entry, record: LookRecord, result: LookResult, anchor: str) -> Iterator[Markup]:
    """The parts of a finished picture, the dispensable ones last."""
    yield _compare(entry, record, anchor)
    full = element("a", "Full size", href=link(result.file))
    options, seconds = record.look.options, duration(sum(result.seconds.values()))
    preset = f"{options.preset.value} · " if options.preset is not Preset.EXACT else ""
    yield element("p", f"{preset}{options.steps} steps · seed {options.seed} · {seconds} · ", full, class_="faint")
    yield worn(entry, record, person=False)
    yield element(
        "details",
        element("summary", "Options, seconds, make it again"),
        _options(record, result),
        _again(config, entry.job, record),
        id=f"{anchor}-more",
    )


def _compare(entry: Entry, record: LookRecord, anchor: str) -> Markup:
    """The picture with the person before it, and a slider that moves the border between them."""
    file = record.look.person
    before = small_picture(entry, file, f"before: {file}", (480, 640))
    slider = element(
        "input",
        type="range",
        min=0,
        max=100,
        value=0,
        id=f"{anchor}-before",
        autocomplete="off",
        aria_label=f"Before and after, {record.look.key}: percent of the picture before",
    )
    whole = record.look.options.framing is Framing.PASTE_BACK
    return element(
        "div",
        element("div", result_picture(entry, record), class_="after"),
        element("div", before, class_="before"),
        slider,
        class_="compare whole" if whole else "compare",
    )


def _options(record: LookRecord, result: LookResult) -> Markup:
    look, options = record.look, record.look.options
    rows = [
        ("person", look.person),
        *((slot.value, file) for slot, file in look.garments.items()),
        *((option, str(getattr(options, option))) for option in OPTIONS),
        ("size", f"{result.width} x {result.height}"),
        ("weights", result.versions.get("bundle", "")),
        ("device", result.device),
        *((stage, f"{seconds:.2f} s") for stage, seconds in result.seconds.items()),
    ]
    if result.peak_vram_bytes is not None:
        rows.append(("peak VRAM", f"{result.peak_vram_bytes / 2**30:.2f} GiB"))
    if record.attempts > 1:
        rows.append(("attempts", str(record.attempts)))
    pairs = (element("div", element("dt", key), element("dd", value, dir="auto")) for key, value in rows if value)
    return element("dl", pairs)


def _again(config: Config, job: Job, record: LookRecord) -> Markup:
    snapshot = snapshot_folder(config, job)
    if not _has_uploads(snapshot, record):
        return element(
            "p", "The uploaded files are no longer in the spool, so there is no line to make it again.", class_="faint"
        )
    command = reproduce_command(config, record, snapshot)
    code = element("code", command, tabindex=0, role="region", aria_label="Command")
    return element(
        "div",
        element("p", "Make it again, on the machine that made it:", class_="faint"),
        element("div", code, element("button", "Copy", type="button", data_copy=True, hidden=True), class_="command"),
    )


def _has_uploads(snapshot: Path, record: LookRecord) -> bool:
    return all((snapshot / file).is_file() for file in (record.look.person, *record.look.garments.values()))


def _extent(page: JobPage) -> Markup | None:
    """Which pictures of a large job are on this page: the filters are for these alone."""
    if page.pages == 1:
        return None
    first, last = page.records[0].position + 1, page.records[-1].position + 1
    told = f"Pictures {first} to {last} of {page.entry.total} are on this page."
    return element("p", told, class_="faint", id="extent")


def _pager(page: JobPage) -> Markup | None:
    if page.pages == 1:
        return None
    links = [
        element("a", str(number), href=page_file(number), aria_current="page" if number == page.number else None)
        for number in range(1, page.pages + 1)
    ]
    return element("nav", links, class_="pager", id="pager", aria_label="Pages")
