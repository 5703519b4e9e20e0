"""Has an upload stopped changing? Pure: the caller reads the folder and the clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stillness:
    """Since when a folder has had the same fingerprint. `since_s` is in seconds of the caller's clock."""

    digest: str
    since_s: float

    def quiet_s(self, now_s: float) -> float:
        """Seconds without a change."""
        return now_s - self.since_s


def observe(before: Stillness | None, digest: str, now_s: float) -> Stillness:
    """Add one look at the folder. A change, or a clock set back, starts the wait anew."""
    if before is None or before.digest != digest or now_s < before.since_s:
        return Stillness(digest, now_s)
    return before


def is_still(stillness: Stillness, settle_s: float, now_s: float) -> bool:
    """Has nothing changed for `settle_s`? Needs two looks at the folder, unless `settle_s` is 0."""
    return stillness.quiet_s(now_s) >= settle_s


def next_observation_s(stillness: Stillness, settle_s: float, stalled_after_s: float, now_s: float) -> float | None:
    """Return in how many seconds the verdict on an unchanged folder can change; None: not before it is touched."""
    moments = (moment - stillness.quiet_s(now_s) for moment in (settle_s, stalled_after_s))
    return min((wait_s for wait_s in moments if wait_s > 0), default=None)
