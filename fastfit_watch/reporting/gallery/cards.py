"""Pieces that several pages share: a job as a card, a finished picture beside what went into it, states and reasons."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fastfit_watch.domain.job import Job, LookProgress, LookRecord, LookStatus, Status
from fastfit_watch.domain.text import duration
from fastfit_watch.reporting.gallery.markup import Markup, element, join, link, name, shorten
from fastfit_watch.reporting.gallery.thumbs import THUMBS, thumb_file

_TILES = 8  # pictures on one card
_REASON = 300  # characters of a reason on a card
_WORDS: Mapping[str, str] = {
    "waiting": "Uploading",
    "stalled": "Upload stopped",
    "invalid": "Cannot be used",
    "queued": "In line",
    "running": "In work",
    "done": "Done",
    "failed": "Failed",
    "withheld": "Held back",
    "cancelled": "Cancelled",
}
# Faults of a manifest stand in one line, each beginning with its place, outfit.yaml:3: ..., and so do those of a job's
# looks, each beginning with its key, anna.casual: ..., after how many there are.
_NEXT_FAULT = re.compile(r"(?<=looks failed: )|; (?=[^ ;]+:\d+: |[^;:]+\.[^;:]+: |and \d+ more|\d+ withheld: )")


@dataclass(frozen=True)
class Entry:
    """What a page tells of one job.

    folder: its folder in outputs/. base: the way there from the page, ending in a slash; empty on the job's own pages.
    withheld: how many pictures the content filter keeps back. pictures: some finished looks of it. looks: names of its
    looks. progress: how far the look in hand is.
    """

    job: Job
    folder: Path
    base: str = ""
    made: int = 0
    total: int = 0
    withheld: int = 0
    pictures: Sequence[LookRecord] = ()
    looks: Sequence[str] = ()
    progress: LookProgress | None = None

    @property
    def anchor(self) -> str:
        """An id for the page: letters and digits, whatever the job is called."""
        return "job-" + thumb_file(self.job.id).removesuffix(".webp")


def card(entry: Entry, room: int) -> Markup:
    """A job on the front page or on a shelf, in at most about `room` bytes; a very long one is told in short."""
    job = entry.job
    gone = job.status.is_final and not (job.has_results and entry.folder.is_dir())
    head = _card_head(entry, gone)
    body: list[Markup | None] = [head]
    if entry.total and not job.status.is_final:
        body.append(progress_bar(entry, entry.anchor))
    if job.status in (Status.FAILED, Status.INVALID, Status.STALLED):
        body += [reason(shorten(job.reason, _REASON)), remedy(job)]
    body.append(review(entry))
    tiles: list[Markup] = []
    if gone:
        body.append(element("p", "Its folder in outputs/ was removed.", class_="faint"))
    else:
        tiles = list(_tiles_within(entry, room - len(join(body))))
        body += _shown_pictures(entry, tiles)
    if len(join(body)) > room:
        body = [head]
    names: list[str] = []
    for look in entry.looks:
        if len(json.dumps([*names, look])) < room // 6:
            names.append(look)
    return element(
        "article",
        body,
        class_=f"job {_breadth(job, len(tiles))}".rstrip(),
        id=entry.anchor,
        data_item=True,
        data_state=job.status.value,
        data_looks=json.dumps(names, ensure_ascii=False),
        aria_labelledby=f"{entry.anchor}-name",
    )


def state(status: Status | LookStatus) -> Markup:
    """A state in a word, with its colour."""
    return element("span", word(status), class_=f"state {status.value}")


def word(status: Status | LookStatus) -> str:
    """A state as people say it."""
    return _WORDS.get(status.value, status.value)


def reason(text: str) -> Markup:
    """Why a job or a picture is as it is; several faults as a list."""
    faults = _NEXT_FAULT.split(text)
    if len(faults) == 1:
        return element("p", text, class_="reason", dir="auto")
    before = element("p", faults.pop(0), class_="reason") if faults[0].endswith(": ") else None
    return join((before, element("ul", (element("li", fault, dir="auto") for fault in faults), class_="reason")))


def remedy(job: Job) -> Markup | None:
    """What to do about a job that did not go well; None for one that did."""
    folder = f"inputs/{job.name}/"
    if job.status is Status.INVALID:
        return element("p", f"Mend it in {folder}: it is checked again by itself.", class_="fix")
    if job.status is Status.STALLED:
        return element("p", f"Finish the upload of {folder}, or remove it.", class_="fix")
    if job.status is Status.CANCELLED and job.claimed_s is None:
        return None
    if job.status in (Status.FAILED, Status.CANCELLED):
        command = element("code", f"fastfit-watch retry {shlex.quote(job.id)}")
        return element("p", "To try again: ", command, f", or an empty file RETRY in {folder}.", class_="fix")
    return None


def review(entry: Entry) -> Markup | None:
    """What to do about pictures that were kept back; None where there are none."""
    if not entry.withheld:
        return None
    command = element("code", f"fastfit-watch release {shlex.quote(entry.job.id)}")
    kept = f"{pictures(entry.withheld)} held back by the content filter. To see why, and to release or discard: "
    return element("p", kept, command, class_="fix")


def progress_bar(entry: Entry, labelled_by: str) -> Markup:
    """Pictures made, of all."""
    return element("progress", max=entry.total, value=entry.made, aria_labelledby=f"{labelled_by}-name")


def progress_line(progress: LookProgress | None) -> str:
    """What the engine is at, and how long it takes: `ben.gala: step 12 of 30, about 40 s left`."""
    if progress is None:
        return ""
    at = f"step {progress.step} of {progress.steps}" if progress.step else progress.stage
    left = f", about {duration(progress.eta_s)} left" if progress.eta_s is not None else ""
    return f"{progress.look}: {at}{left}"


def moment(unix_s: float) -> Markup:
    """A point in time, in the daemon's own time zone."""
    at = datetime.fromtimestamp(unix_s, UTC)
    return element("time", at.astimezone().strftime("%d %b %Y, %H:%M"), datetime=at.isoformat(timespec="seconds"))


def worn(entry: Entry, record: LookRecord, *, person: bool) -> Markup:
    """What went into a picture, small: the person, then the garments."""
    parts = [("person", record.look.person)] if person else []
    parts += [(slot.value, file) for slot, file in record.look.garments.items()]
    shown = (small_picture(entry, file, f"{slot}: {file}", (60, 80)) for slot, file in parts)
    return element("div", shown, class_="worn")


def small_picture(entry: Entry, file: str, alt: str, size: tuple[int, int]) -> Markup:
    """An upload's small picture, or an empty place where there is none. size: width and height it is laid out with."""
    thumb = thumb_file(entry.job.files.get(file, file))
    return _picture(entry, thumb, alt, size)


def result_picture(entry: Entry, record: LookRecord) -> Markup:
    """A result's small picture."""
    digest = record.result.sha256 if record.result is not None else ""
    alt = f"{_person(record)} dressed as {record.look.name}"
    return _picture(entry, thumb_file(digest), alt, (480, 640))


def caption(record: LookRecord) -> Markup:
    """Who, in which look."""
    return join((name(_person(record)), " ", element("span", name(record.look.name), class_="look")))


def _picture(entry: Entry, thumb: str, alt: str, size: tuple[int, int]) -> Markup:
    if not (entry.folder / THUMBS / thumb).is_file():
        return element("span", class_="empty", role="img", aria_label=f"no picture: {alt}")
    source = entry.base + link(THUMBS, thumb)
    return element("img", src=source, alt=alt, width=size[0], height=size[1], loading="lazy", decoding="async")


def _card_head(entry: Entry, gone: bool) -> Markup:
    job = entry.job
    title = name(job.id) if gone else element("a", name(job.id), href=f"{entry.base}index.html")
    facts: list[Markup | str] = [state(job.status)]
    facts += [_words(text) for text in _facts(entry) if text]
    facts.append(element("span", moment(job.finished_s or job.started_s or job.first_seen_s)))
    return element(
        "header", element("h3", title, id=f"{entry.anchor}-name"), element("p", facts, class_="facts"), class_="head"
    )


def _facts(entry: Entry) -> Iterator[str]:
    job = entry.job
    if job.status is Status.WAITING:
        yield shorten(job.reason, _REASON)
    if entry.total:
        yield f"{entry.made} of {pictures(entry.total)}" if entry.made < entry.total else pictures(entry.total)
    if job.started_s is not None and job.finished_s is not None:
        yield duration(job.finished_s - job.started_s)
    yield progress_line(entry.progress)


def pictures(count: int) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count} picture" if count == 1 else f"{count} pictures"


def _words(text: str) -> Markup:
    return element("span", text, dir="auto")


def _breadth(job: Job, tiles: int) -> str:
    """The columns a card needs, as a class of the style sheet, so that small ones share a row. Empty: all of them."""
    if job.status not in (Status.QUEUED, Status.DONE, Status.CANCELLED):
        return ""
    return ("brief", "single", "double", "")[min(tiles, 3)]


def _shown_pictures(entry: Entry, tiles: Sequence[Markup]) -> Iterator[Markup]:
    if tiles:
        yield element("ul", tiles, class_="tiles")
    if tiles and entry.made > len(tiles):
        every = element("a", f"All {entry.made} pictures", href=f"{entry.base}index.html")
        yield element("p", every, class_="more")


def _tiles_within(entry: Entry, room: int) -> Iterator[Markup]:
    for record in entry.pictures[:_TILES]:
        tile = _tile(entry, record)
        room -= len(tile)
        if room < 0:
            return
        yield tile


def _tile(entry: Entry, record: LookRecord) -> Markup:
    """A finished picture, beside it the person and the garments."""
    file = record.result.file if record.result is not None else ""
    full = element("a", result_picture(entry, record), href=entry.base + link(file))
    shown = element("div", full, worn(entry, record, person=True), class_="beside")
    return element("li", shown, element("p", caption(record), class_="who"), class_="tile", data_look=record.look.name)


def _person(record: LookRecord) -> str:
    return record.look.person.rsplit(".", 1)[0]
