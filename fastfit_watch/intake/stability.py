"""Has an upload stopped changing? Pure: the caller reads the folder and the clock."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fastfit_watch.domain.errors import UploadError

SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")


class FileMark(NamedTuple):
    """What betrays a change of one file. The ctime counts most: tools may set any mtime, none can set the ctime."""

    name: str
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


Fingerprint = tuple[FileMark, ...]


def digest_of(fingerprint: Fingerprint) -> str:
    """Return a short text that differs whenever the fingerprint does. The order of the files does not matter."""
    lines = (b"%b\0%d\0%d\0%d\0%d\n" % (os.fsencode(mark.name), *mark[1:]) for mark in sorted(fingerprint))
    return hashlib.sha256(b"".join(lines)).hexdigest()


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


def next_look_s(stillness: Stillness, settle_s: float, stalled_after_s: float, now_s: float) -> float | None:
    """Return in how many seconds the verdict on an unchanged folder can change; None: not before it is touched."""
    moments = (moment - stillness.quiet_s(now_s) for moment in (settle_s, stalled_after_s))
    return min((wait_s for wait_s in moments if wait_s > 0), default=None)


def read_sums(text: str) -> dict[str, str]:
    """Read the output of `sha256sum`: file name -> sha256. Raises UploadError naming the first line that is none."""
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = SUM_LINE.fullmatch(line)
        if match is None:
            raise UploadError(f"SHA256SUMS:{number}: this is no line of sha256sum.", hint="Make it with 'sha256sum *'.")
        sums[match[2]] = match[1].lower()
    return sums


def unlike_sums(sums: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """Return the names of `files` (name -> sha256) that `sums` gives another hash. Files without one are not judged."""
    return [name for name, sha256 in files.items() if sums.get(name, sha256) != sha256]
