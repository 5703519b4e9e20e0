"""Identifies the state of an upload: inode, size and times of each of its files."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple


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
