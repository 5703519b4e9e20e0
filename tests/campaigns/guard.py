"""What a guard is, for guards.py and its lists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """One guard: where it stands, its text, what is put in its place, and the test that must fail then."""

    part: str
    name: str
    file: str
    text: str
    instead: str
    test: str
