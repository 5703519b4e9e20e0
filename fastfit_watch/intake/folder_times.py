"""Which folders need to be read again? Pure: the caller looks at the folders and the clock.

What is made, removed or renamed in a folder changes the folder's own times, and they cost one call to learn. Only a
file that grows in place does not, so an upload is also read from time to time, the less often the longer it is quiet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fastfit_watch.intake.scan import Stamp

# A change right after a reading may bear the same time as the one before it: kernels count in steps of some ms.
BLUR_S = 2.0
# Reading one folder takes about a tenth of a millisecond: a few can be read at every scan, of many each in its turn.
FEW, EACH_S = 100, 0.02
QUIET_PARTS = 8.0


@dataclass
class _FolderTime:
    stamp: Stamp
    since_s: float
    read_s: float


class FolderTimes:
    """What is remembered of folders between scans. Times are steady seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, _FolderTime] = {}

    def __contains__(self, title: str) -> bool:
        return title in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    def note_read(self, title: str, stamp: Stamp, clock_s: float) -> None:
        """This folder is being read. stamp: its times, taken before."""
        seen = self._seen.get(title)
        if seen is None or seen.stamp != stamp:
            self._seen[title] = _FolderTime(stamp, clock_s, clock_s)
        else:
            seen.read_s = clock_s

    def is_changed(self, title: str, stamp: Stamp, clock_s: float) -> bool:
        """Was something made or removed in this folder, as far as its times tell?"""
        seen = self._seen.get(title)
        if seen is None or seen.stamp != stamp:
            return True
        return seen.read_s - seen.since_s < BLUR_S <= clock_s - seen.since_s

    def is_due(self, title: str, quiet_s: float, uploads: int, clock_s: float) -> bool:
        """Is it time to look whether a file grew in place?

        quiet_s: for how long nothing changed. uploads: how many such folders there are.
        """
        pause_s = min(quiet_s / QUIET_PARTS, uploads * EACH_S) if uploads > FEW else 0.0
        return clock_s - self._seen[title].read_s >= pause_s

    def forget(self, title: str) -> None:
        """Read this folder at the next scan."""
        self._seen.pop(title, None)

    def forget_all(self) -> None:
        """Read all folders at the next scan."""
        self._seen.clear()

    def keep_only(self, titles: Collection[str]) -> None:
        """Folders that are gone need not be remembered."""
        for title in [title for title in self._seen if title not in titles]:
            del self._seen[title]
