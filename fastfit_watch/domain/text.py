"""Writes values as people read them: lines, durations, sizes."""

from __future__ import annotations

import unicodedata

JOINERS = frozenset("\u200c\u200d")
"""Zero-width characters that scripts and emoji need between two others."""


def one_line(text: str) -> str:
    """`text` with everything that is not printable escaped: line breaks, terminal codes, direction marks."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def gigabytes(count: int) -> str:
    """`4.9 GB`, `12 MB`, `340 bytes`; a GB is 10^9 bytes."""
    if count >= 10**9:
        return f"{count / 1e9:.1f} GB"
    if count >= 10**6:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e3:.0f} kB" if count >= 10**4 else f"{count} bytes"


def can_be_shown(name: str) -> bool:
    """May a file or folder have this name? It may have spaces of any kind, but nothing that hides or reorders text."""
    return all(letter.isprintable() or letter in JOINERS or unicodedata.category(letter) == "Zs" for letter in name)
