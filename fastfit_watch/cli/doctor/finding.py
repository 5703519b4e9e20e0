"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """ok: as it should be. warn: it works, but worse than it could. fail: it does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line. `check` names what was looked at, in one word; `fix` says what to do and is empty if all is well."""

    check: str
    level: Level
    message: str
    fix: str = ""


def good(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, message)


def poor(check: str, message: str, fix: str) -> Finding:
    """It works, but worse than it could."""
    return Finding(check, Level.WARN, message, fix)


def bad(check: str, message: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.FAIL, message, fix)
