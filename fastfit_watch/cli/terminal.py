"""Words for a terminal: what may be printed, how wide it is, whether colours are welcome, and bars."""

from __future__ import annotations

import os
import select
import time
import unicodedata
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TextIO

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_RESET = "\x1b[0m"


class Colour(StrEnum):
    """SGR codes (ECMA-48, section 8.3.117)."""

    PLAIN = ""
    FAINT = "\x1b[2m"
    BOLD = "\x1b[1m"
    GOOD = "\x1b[32m"
    BUSY = "\x1b[33m"
    BAD = "\x1b[31m"


def wants_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Is this a terminal that shows colours, and has nobody asked for none? (no-color.org)"""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def paint(text: str, colour: Colour, *, wanted: bool) -> str:
    """`text` in a colour, if colours are wanted."""
    return f"{colour}{text}{_RESET}" if wanted and colour is not Colour.PLAIN else text


def width(text: str) -> int:
    """Columns that `text` takes: wide characters two, combining ones none."""
    return sum(_columns(character) for character in text)


def truncate(text: str, columns: int) -> str:
    """`text` cut to at most so many columns; what was cut is an ellipsis."""
    if width(text) <= columns:
        return text
    kept, taken = "", 0
    for character in text:
        taken += _columns(character)
        if taken > columns - 1:
            break
        kept += character
    return f"{kept}…"[: max(0, columns)]


def pad_to(text: str, columns: int) -> str:
    """`text` followed by spaces up to so many columns."""
    return text + " " * (columns - width(text))


def bar(share: float, columns: int, stream: TextIO) -> str:
    """A bar of so many columns, `share` (0..1) of it filled; of plain characters where the stream has no others."""
    eighths = round(max(0.0, min(1.0, share)) * columns * 8)
    full, part = divmod(eighths, 8)
    if not speaks_unicode(stream):
        return ("#" * full).ljust(columns, "-")
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(columns, "░")


def speaks_unicode(stream: TextIO) -> bool:
    """Can this stream show block characters?"""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The columns that each cell needs, over all rows of equal length."""
    return [max(map(width, cells)) for cells in zip(*rows, strict=True)]


def reader_has_gone(stream: TextIO, wait_s: float) -> bool:
    """Wait, and tell whether the reader at the other end of a pipe has gone meanwhile."""
    try:
        poller = select.poll()
        poller.register(stream.fileno(), 0)
    except (OSError, ValueError):
        time.sleep(wait_s)
        return False
    return bool(poller.poll(wait_s * 1000))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
