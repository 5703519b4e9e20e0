"""The front page: what runs and waits, what needs somebody, the newest pictures. The archive: all jobs by age."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastfit_watch.domain.job import Status
from fastfit_watch.reporting.gallery.cards import TROUBLED, Entry
from fastfit_watch.reporting.gallery.templates import render, shorten
from fastfit_watch.storage.queries import Shelf as ArchivePart

if TYPE_CHECKING:
    from markupsafe import Markup

ARCHIVE_FOLDER = "gallery"
ARCHIVE_SIZE = 24  # jobs on one page
BUSY_S = 5  # seconds until an open page asks for news while work goes on
CALM_S = 30
FRONT_EVERY_S = 120.0  # the front page is written so often at least, so that its age tells whether the daemon runs
FRONT_FILE = "index.html"
_HOME = f"../{FRONT_FILE}"
_CARDS_CHARACTERS = 220_000
_CARD_CHARACTERS = 9000
_LISTED = 400  # pages of the archive that the front page links to
_NAMES, _NAME = 3, 30  # troubled jobs named in one line, and characters of a name
_LOOKS = 200  # names of looks to filter by
_NEWS = (
    Status.RUNNING,
    Status.QUEUED,
    Status.WAITING,
    Status.FAILED,
    Status.INVALID,
    Status.STALLED,
    Status.DONE,
)
DrawCard = Callable[[Entry, int], "Markup"]
"""Draws the card of an entry in so many characters."""


@dataclass(frozen=True)
class FrontPage:
    """What the front page shows. halt: why nothing is made just now, if so."""

    running: Sequence[Entry]
    queued: Sequence[Entry]
    troubled: Sequence[Entry]
    waiting: Sequence[Entry]
    newest: Sequence[Entry]
    counts: Mapping[Status, int]
    archive: Sequence[ArchivePart]
    halt: str = ""


@dataclass(frozen=True)
class ArchivePage:
    """A page of the archive with its jobs, the oldest first. newer, older: the numbers of the pages beside it."""

    part: ArchivePart
    entries: Sequence[Entry]
    newer: int | None
    older: int | None


def build_front_page(front: FrontPage, draw: DrawCard, now_s: float) -> str:
    """The page as HTML."""
    groups = (
        ("running", "Running", front.running),
        ("newest", "Newest", front.newest),
        ("queued", "Queued", front.queued),
        ("waiting", "Waiting", front.waiting),
    )
    entries = [*front.troubled, *(entry for _, _, some in groups for entry in some)]
    most = _characters(entries)
    counted = [f"{front.counts[status]} {status.value}" for status in _NEWS if front.counts.get(status)]
    news = ", ".join(counted) + "." if counted else "No uploads yet."
    is_busy = any(front.counts.get(status) for status in (Status.RUNNING, Status.QUEUED, Status.WAITING))
    return render(
        "front.html",
        title=news.removesuffix("."),
        stamp="",
        home=FRONT_FILE,
        now_s=now_s,
        refresh_s=BUSY_S if is_busy else CALM_S,
        renewed_s=2 * FRONT_EVERY_S + CALM_S,
        front=front,
        news=news,
        is_busy=is_busy,
        is_empty=not entries,
        troubled=[draw(entry, most) for entry in front.troubled],
        troubled_total=sum(front.counts.get(status, 0) for status in TROUBLED),
        troubled_names=[shorten(entry.job.id, _NAME) for entry in front.troubled[:_NAMES]],
        groups=[(anchor, title, [draw(entry, most) for entry in some]) for anchor, title, some in groups if some],
        archive=[_describe(part) for part in list(reversed(front.archive))[:_LISTED]],
        **_filters(entries, front.counts),
    )


def archive_file(number: int) -> str:
    """The file name of a page in outputs/gallery."""
    return f"page-{number}.html"


def build_archive_page(page: ArchivePage, draw: DrawCard, stamp: str, now_s: float) -> str:
    """A page of the archive as HTML, its newest job first."""
    most = _characters(page.entries)
    return render(
        "archive.html",
        title=f"Jobs {_span(page.part)}",
        stamp=stamp,
        home=_HOME,
        now_s=now_s,
        refresh_s=CALM_S,
        renewed_s=0,
        cards=[draw(entry, most) for entry in reversed(page.entries)],
        newer=None if page.newer is None else archive_file(page.newer),
        older=None if page.older is None else archive_file(page.older),
        **_filters(page.entries, page.part.counts),
    )


def _characters(entries: Sequence[Entry]) -> int:
    """So many characters each card may take, so that the page stays under 300 KB."""
    return min(_CARD_CHARACTERS, _CARDS_CHARACTERS // max(1, len(entries)))


def _filters(entries: Sequence[Entry], counts: Mapping[Status, int]) -> dict[str, Any]:
    return {
        "states": [(status.value, counts[status]) for status in Status if counts.get(status)],
        "looks": sorted({look for entry in entries for look in entry.looks})[:_LOOKS],
        "total": sum(counts.values()),
    }


def _describe(part: ArchivePart) -> dict[str, Any]:
    """A link to a page of the archive, with its states, so that a filter leaves those that hold a match."""
    states = [status.value for status in part.counts]
    return {"href": f"{ARCHIVE_FOLDER}/{archive_file(part.number)}", "states": states, "span": _span(part)}


def _span(part: ArchivePart) -> str:
    first = (part.number - 1) * ARCHIVE_SIZE + 1
    return f"{first} to {first + ARCHIVE_SIZE - 1}"
