"""How fast work goes and how much is left: what the daemon measured, and what everyone who is told reckons from it.

The daemon leaves its present pace in a file beside the ledger. It is a hint that is soon stale: it is neither synced
nor kept, and a reader does without it.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path

from fastfit_watch.domain.job import LookProgress, LookRecord, LookStatus

SECONDS_NOTE = "seconds_per_step"
_STALE_S = 60.0
_PENDING = (LookStatus.RUNNING, LookStatus.QUEUED)


@dataclass(frozen=True)
class LiveProgress:
    """What the daemon is at. at_s: Unix time. looks: job id -> the look in hand."""

    at_s: float
    engines: int
    looks: Mapping[str, LookProgress] = field(default_factory=dict)


def save_pace(path: Path, pace: LiveProgress) -> None:
    """Write it whole, but not durably. Raises OSError."""
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(asdict(pace)), encoding="utf-8")
    temporary.replace(path)


def read_pace(path: Path, now_s: float) -> LiveProgress:
    """The pace of a daemon that is at work; where none can be read, or it is old, one engine with nothing in hand."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        looks = {job: LookProgress(**progress) for job, progress in fields["looks"].items()}
        if abs(now_s - fields["at_s"]) <= _STALE_S:
            return LiveProgress(fields["at_s"], max(1, fields["engines"]), looks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return LiveProgress(now_s, 1)


def steps_left(records: Iterable[LookRecord], progress: LookProgress | None) -> float:
    """Denoising steps still to do for a job."""
    steps = sum(record.look.options.steps for record in records if record.status in _PENDING)
    return after_progress(steps, progress)


def after_progress(steps: float, progress: LookProgress | None) -> float:
    """Of so many steps, those that are left once the look in hand is so far."""
    return max(0.0, steps - (progress.step if progress is not None else 0))


def times_left_s(left: Mapping[str, float], seconds_per_step: float, engines: int) -> dict[str, float]:
    """Seconds until each job is made, from the steps left for each.

    Jobs take turns: each of the others delays a job by at most that job's own length.
    """
    lengths = sorted(left.values())
    sums = [0.0, *accumulate(lengths)]

    def steps_before(own: float) -> float:
        shorter = bisect_right(lengths, own)
        return sums[shorter] + own * (len(lengths) - shorter)

    return {job: steps_before(own) * seconds_per_step / engines for job, own in left.items()}
