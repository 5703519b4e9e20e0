"""Lists what lies in `inputs/`: the uploads, and whether each may be read."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from fastfit_watch.domain.errors import StorageError

# Room for the "-2" of a name that comes again, in the 255 bytes of a file name.
LONGEST_NAME_BYTES = 200


RESERVED_NAMES = frozenset({"index.html", "gallery"})


Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class UploadEntry:
    """One folder in `inputs/`.

    name: as it is on disk. title: how it is called everywhere else; the name itself, unless that cannot be shown.
    fault: empty, or a sentence why this can be no upload.
    stamp: tells whether something was made or removed in it.
    """

    name: str
    title: str
    fault: str = ""
    stamp: Stamp = field(default=(0, 0, 0), compare=False)


def scan(inputs: Path) -> list[UploadEntry]:
    """List the uploads: the folders in `inputs/`, dot-names left out, in the order of their names.

    A symlink to a folder is reported as a fault. Loose files are no uploads and are left out. Raises StorageError if
    `inputs/` cannot be read.
    """
    try:
        with os.scandir(inputs) as entries:
            found = [sighting for entry in entries if (sighting := _sight(entry)) is not None]
    except OSError as error:
        raise StorageError(
            f"The folder {inputs} cannot be read: {error.strerror}.", hint="Make it again, or mount it."
        ) from error
    return sorted(found, key=lambda sighting: sighting.name)


def _sight(entry: os.DirEntry[str]) -> UploadEntry | None:
    name = entry.name
    if name.startswith("."):
        return None
    if entry.is_symlink():
        fault = "it is a symbolic link. Upload a real folder." if _leads_to_folder(entry) else None
        return None if fault is None else UploadEntry(name, _title(name), fault)
    if not entry.is_dir(follow_symlinks=False):
        return None
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # it is just being removed
    fault = _fault(name)
    stamp = (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)
    return UploadEntry(name, _title(name) if fault else name, fault, stamp)


def _fault(name: str) -> str:
    """A sentence why a folder of this name can be no upload, or nothing."""
    if not name.isprintable():
        return "its name has characters that cannot be shown. Rename it."
    if len(name) > LONGEST_NAME_BYTES // 4 and len(os.fsencode(name)) > LONGEST_NAME_BYTES:
        return f"its name is longer than {LONGEST_NAME_BYTES} bytes. Rename it."
    return "its name is taken by a page in outputs/. Rename it." if name in RESERVED_NAMES else ""


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _title(name: str) -> str:
    """The name in characters that can be shown, and short enough for a file name."""
    shown = "".join(part if part.isprintable() else repr(part)[1:-1] for part in name)
    if shown == name and name not in RESERVED_NAMES and len(os.fsencode(name)) <= LONGEST_NAME_BYTES:
        return name
    return f"{shown[:40]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
