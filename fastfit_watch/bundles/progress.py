"""How far a fetch is: bytes counted as they come, and told to a listener now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fastfit_watch.domain.text import duration

_TELL_S = 1.0
_LANDMARK_S = 30.0
_TRUSTED_S = 3.0


@dataclass(frozen=True)
class DownloadProgress:
    """How far a fetch is. left_s: None while nobody can know. is_landmark: worth a line in a log."""

    title: str
    done_bytes: int
    total_bytes: int
    left_s: float | None = None
    note: str = ""
    is_landmark: bool = False

    @property
    def share(self) -> float:
        """What is done, 0..1."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 1.0

    def __str__(self) -> str:
        left = f", about {duration(self.left_s)} left" if self.left_s is not None else ""
        note = f" ({self.note})" if self.note else ""
        return f"fetching {self.title}: {int(100 * self.share)} %{left}{note}"


class ProgressListener(Protocol):
    """Who wants to know of a fetch."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something that is not as it should be, though it goes on."""

    def show(self, progress: DownloadProgress) -> None:
        """It moved on. Called about once a second, and only if it did."""


class ProgressMeter:
    """Counts the bytes of one fetch. `done_bytes` were here before it began and tell nothing of its speed."""

    def __init__(
        self,
        title: str,
        total_bytes: int,
        done_bytes: int,
        listener: ProgressListener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._total_bytes, self._listener, self._clock = title, total_bytes, listener, clock
        self._done_bytes = self._began_bytes = done_bytes
        self._began_s = clock()
        self._told_s = self._landmark_s = float("-inf")
        self._tell()

    def count(self, added_bytes: int) -> None:
        """So many bytes more are on disk; fewer if negative: a file was begun anew."""
        self._done_bytes += added_bytes
        if added_bytes < 0:
            self._began_s, self._began_bytes = self._clock(), self._done_bytes
        if self._clock() - self._told_s >= _TELL_S:
            self._tell()

    def _tell(self) -> None:
        now_s = self._clock()
        is_landmark = now_s - self._landmark_s >= _LANDMARK_S
        self._told_s = now_s
        self._landmark_s = now_s if is_landmark else self._landmark_s
        elapsed_s, fetched = now_s - self._began_s, self._done_bytes - self._began_bytes
        known = elapsed_s >= _TRUSTED_S and fetched > 0
        left_s = (self._total_bytes - self._done_bytes) * elapsed_s / fetched if known else None
        self._listener.show(
            DownloadProgress(self._title, self._done_bytes, self._total_bytes, left_s, is_landmark=is_landmark)
        )
