"""Renders the pages' templates: text is escaped, and what is invisible in it is spelled out, in one place."""

from __future__ import annotations

import hashlib
import html
import os
import re
from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastfit_watch.domain.text import duration

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_FOLDER = resources.files(__package__) / "templates"
_SCRIPTS = ("page.js", "larger.js", "zip.js")
_STAMP = '<meta name="fastfit-stamp" content="'
# Joiners are invisible, but Persian, Indian scripts and emoji are misspelt without them.
_JOINERS = frozenset("\u200c\u200d")
_INDENTATION = re.compile(r"^[ \t]+", re.MULTILINE)


def render(template: str, **values: Any) -> str:
    """Render a whole page with its style sheet and script, and a policy that lets it load nothing but these."""
    return environment().get_template(template).render(**values, **_assets())


def macros(template: str) -> Any:
    """Return the macros of a template, as functions that return Markup."""
    return environment().get_template(template).module


def show(text: str) -> str:
    """Text as a page may show it: what is invisible, or turns the writing direction round, becomes visible.

    Control characters, bidirectional overrides and half characters are written like `\\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in _JOINERS else _escape(letter) for letter in text)


def link(*parts: str) -> str:
    """A relative address of these names, each wholly percent-encoded."""
    return "/".join(quote(os.fsencode(part), safe="") for part in parts)


def shorten(text: str, most: int) -> str:
    """Text of at most so many characters, with an ellipsis where it was cut."""
    return text if len(text) <= most else text[: most - 1] + "…"


def count_pictures(number: int) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} picture" if number == 1 else f"{number} pictures"


def read_stamp(head: bytes) -> str | None:
    """The stamp of a page from its first bytes; None if it is none of the gallery's."""
    _, found, rest = head.partition(_STAMP.encode())
    return html.unescape(rest.partition(b'"')[0].decode("utf-8", "replace")) if found else None


@cache
def edition() -> str:
    """A short text that differs when pages of this version look different from those of another."""
    texts = (each.read_text(encoding="utf-8") for each in sorted(_FOLDER.iterdir(), key=lambda each: each.name))
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:8]


@cache
def environment() -> Environment:
    """Return the templates' environment; jinja2 is imported when the first page is written."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        loader=FunctionLoader(_read_template),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalise,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"link": link, "count_pictures": count_pictures}
    made.filters |= {"duration": duration, "shorten": shorten, "local": _local, "utc": _utc}
    return made


def _finalise(value: object) -> object:
    """Spell out what is invisible in a value of a template; markup stays, None is left out."""
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    return "" if value is None else show(str(value))


@cache
def _assets() -> dict[str, Markup]:
    from markupsafe import Markup

    style, script = _read("page.css"), "".join(map(_read, _SCRIPTS))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    # All three are files of this package.
    return {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}  # noqa: S704


def _read_template(name: str) -> str:
    """A template without its indentation, which would be a fifth of a page."""
    return _INDENTATION.sub("", _read(name))


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _local(unix_s: float) -> str:
    """A point in time, in the daemon's own time zone."""
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%d %b %Y, %H:%M")


def _utc(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


def _escape(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}"
