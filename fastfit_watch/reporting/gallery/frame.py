"""What all pages have around their contents: the head line, the filters, and the sentence when nothing matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastfit_watch.reporting.gallery.cards import moment
from fastfit_watch.reporting.gallery.markup import Markup, document, element, join

_BUSY_S = 5  # seconds until an open page looks for news while work goes on
_CALM_S = 30
FRONT = "index.html"
_LIVE_HELP = "Look for news by itself"


def page(title: str, stamp: str, home: str, main: Markup, now_s: float, *, busy: bool, news: str = "") -> str:
    """A whole page. home: the way to the front page. busy: work goes on. news: a sentence, read out when it changes."""
    head = element(
        "header",
        element("a", "fastfit-watch", href=home, class_="brand"),
        element("a", "← Gallery", href=home) if home != FRONT else None,
        element("p", news, role="status", id="news") if news else None,
        element("p", "written ", moment(now_s), class_="faint", id="written"),
        element("button", "Live", type="button", id="live", aria_pressed="true", hidden=True, title=_LIVE_HELP),
        class_="top",
        id="top",
        data_list=True,
    )
    body = join(
        (
            element("a", "Skip to the contents", href="#main", class_="skip"),
            head,
            element("main", main, id="main", tabindex=-1, data_list=True),
        )
    )
    return document(f"{title} · fastfit-watch", stamp, body, _BUSY_S if busy else _CALM_S)


def filters(states: Iterable[tuple[str, str, int]], looks: Sequence[str], total: int) -> Markup:
    """Filters by state (value, word, how many) and by look; work only with scripts, and are hidden without."""
    chips = [_chip("", "All", total), *(_chip(*each) for each in states)]
    options = [element("option", "every look", value="")]
    options += [element("option", look, value=look) for look in looks]
    return element(
        "form",
        element("fieldset", element("legend", "State", class_="unseen"), chips, class_="chips"),
        element("label", element("span", "Look", class_="faint"), element("select", options, id="look"))
        if len(looks) > 1
        else None,
        element("output", id="shown", aria_live="polite", class_="unseen"),
        id="filters",
        hidden=True,
    )


def nothing_matches() -> Markup:
    """Shown where a filter leaves nothing."""
    return element("p", "Nothing here matches the filter.", id="nothing", class_="faint", hidden=True)


def section(anchor: str, title: str, children: Iterable[Markup]) -> Markup:
    """A part of a page under a heading; it hides when a filter leaves nothing in it."""
    return element(
        "section",
        element("h2", title, id=f"{anchor}-title"),
        children,
        id=anchor,
        data_list=True,
        data_group=True,
        aria_labelledby=f"{anchor}-title",
    )


def _chip(value: str, word: str, count: int) -> Markup:
    anchor = f"state-{value or 'all'}"
    return join(
        (
            element("input", type="radio", name="state", value=value, id=anchor, checked=not value, autocomplete="off"),
            element("label", word, " ", element("span", str(count)), for_=anchor),
        )
    )
