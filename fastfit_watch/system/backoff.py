"""Exponential backoff: the pause before the next attempt, twice as long after each failure."""

from __future__ import annotations

_MOST_DOUBLINGS = 30  # 2.0 ** 1024 is an OverflowError


def backoff_s(failures: int, first_s: float, longest_s: float) -> float:
    """Return the seconds to wait after so many failures in a row: first_s, 2 first_s, 4 first_s ... longest_s."""
    return min(first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest_s)
