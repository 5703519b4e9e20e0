"""Reads SHA256SUMS files and compares them with the files of an upload."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastfit_watch.domain.errors import UploadError

SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")


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


def mismatched_files(sums: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """Return the names of `files` (name -> sha256) that `sums` gives another hash. Files without one are not judged."""
    return [name for name, sha256 in files.items() if sums.get(name, sha256) != sha256]
