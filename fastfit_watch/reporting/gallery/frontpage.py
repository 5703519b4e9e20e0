"""The front page: what is in work and in line, what needs somebody, the newest pictures. Shelves: everything older."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastfit_watch.domain.job import Status
from fastfit_watch.reporting.gallery import frame
from fastfit_watch.reporting.gallery.cards import Entry, word
from fastfit_watch.reporting.gallery.markup import Markup, element, join
from fastfit_watch.storage.queries import Shelf

SHELF_FOLDER = "gallery"
SHELF_SIZE = 24
_ROOM = 220_000  # bytes for all cards of a page
_MOST_FOR_A_CARD = 9000
_SHELVES_LISTED = 400
Draw = Callable[[Entry, int], Markup]
"""Makes a card of an entry in so many bytes."""


@dataclass(frozen=True)
class FrontPage:
    """What the front page shows, in the order in which it shows it. halt: why nothing is made just now, if so."""

    running: Sequence[Entry]
    queued: Sequence[Entry]
    troubled: Sequence[Entry]
    waiting: Sequence[Entry]
    newest: Sequence[Entry]
    counts: Mapping[Status, int]
    shelves: Sequence[Shelf]
    halt: str = ""


@dataclass(frozen=True)
class ShelfPage:
    """A shelf with its jobs, the oldest first. newer, older: the numbers of the shelves beside it, where there are."""

    shelf: Shelf
    entries: Sequence[Entry]
    newer: int | None
    older: int | None


def build_front_page(front: FrontPage, draw: Draw, now_s: float) -> str:
    """The page as HTML."""
    groups = (
        ("running", "In work", front.running),
        ("troubled", "Needs you", front.troubled),
        ("queued", "In line", front.queued),
        ("waiting", "Being uploaded", front.waiting),
        ("newest", "Newest", front.newest),
    )
    entries = [entry for _, _, some in groups for entry in some]
    room = min(_MOST_FOR_A_CARD, _ROOM // max(1, len(entries)))
    parts: list[Markup | None] = [
        element("h1", "Gallery", class_="unseen", id="gallery"),
        element("p", f"Nothing is made just now: {front.halt}", class_="halt", id="halt") if front.halt else None,
    ]
    if entries:
        parts += [_filters(entries, front.counts), frame.nothing_matches()]
    else:
        parts.append(element("p", "No uploads yet. Copy a folder into inputs/ and it appears here.", id="empty"))
    for anchor, title, some in groups:
        if some:
            parts.append(frame.section(anchor, title, [draw(entry, room) for entry in some]))
    parts.append(_shelf_list(front.shelves))
    busy = any(front.counts.get(status) for status in (Status.RUNNING, Status.QUEUED, Status.WAITING))
    news = _news(front.counts)
    return frame.page(news.removesuffix("."), "", frame.FRONT, join(parts), now_s, busy=busy, news=news)


def shelf_file(number: int) -> str:
    """The file name of a shelf's page in outputs/gallery."""
    return f"page-{number}.html"


def build_shelf(page: ShelfPage, draw: Draw, stamp: str, now_s: float) -> str:
    """One shelf as HTML, its newest job first."""
    shelf, entries = page.shelf, page.entries
    room = min(_MOST_FOR_A_CARD, _ROOM // max(1, len(entries)))
    title = f"Jobs {_span(shelf)}"
    parts = [
        element("header", element("h1", title), class_="title", id="title"),
        _filters(entries, shelf.counts),
        frame.nothing_matches(),
        element("div", [draw(entry, room) for entry in reversed(entries)], id="jobs", data_list=True),
        _neighbours(page),
    ]
    return frame.page(title, stamp, "../index.html", join(parts), now_s, busy=False)


def _filters(entries: Sequence[Entry], counts: Mapping[Status, int]) -> Markup:
    states = [(status.value, word(status), counts[status]) for status in Status if counts.get(status)]
    looks = sorted({look for entry in entries for look in entry.looks})
    return frame.filters(states, looks[:200], sum(counts.values()))


def _news(counts: Mapping[Status, int]) -> str:
    """`2 in work, 5 in line, 1 failed, 40 done.`"""
    order = (
        Status.RUNNING,
        Status.QUEUED,
        Status.WAITING,
        Status.FAILED,
        Status.INVALID,
        Status.STALLED,
        Status.DONE,
    )
    said = [f"{counts[status]} {word(status).lower()}" for status in order if counts.get(status)]
    return ", ".join(said) + "." if said else "No uploads yet."


def _shelf_list(shelves: Sequence[Shelf]) -> Markup | None:
    """Links to all shelves, newest first, each with its states, so that a filter leaves those that hold a match."""
    if not shelves:
        return None
    listed = list(reversed(shelves))[:_SHELVES_LISTED]
    links = [
        element(
            "a",
            _span(shelf),
            href=f"{SHELF_FOLDER}/{shelf_file(shelf.number)}",
            data_shelf=" ".join(status.value for status in shelf.counts),
        )
        for shelf in listed
    ]
    return element(
        "details",
        element("summary", "All jobs by age"),
        element("nav", links, class_="pager", aria_label="All jobs by age, newest first"),
        id="shelves",
    )


def _neighbours(page: ShelfPage) -> Markup:
    links = [element("a", "← Newer", href=shelf_file(page.newer))] if page.newer is not None else []
    links.append(element("a", "Newest", href="../index.html"))
    if page.older is not None:
        links.append(element("a", "Older →", href=shelf_file(page.older)))
    return element("nav", links, class_="pager", id="pager", aria_label="Newer and older jobs")


def _span(shelf: Shelf) -> str:
    first = (shelf.number - 1) * SHELF_SIZE + 1
    return f"{first} to {first + SHELF_SIZE - 1}"
