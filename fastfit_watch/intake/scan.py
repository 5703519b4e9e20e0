"""Lists what lies in `inputs/`: the uploads, and whether each may be read; loose files; folders of the system."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.text import can_be_shown
from fastfit_watch.intake.file_names import is_litter, is_system_folder

# Room for the "-2" of a name that comes again, in the 255 bytes of a file name.
LONGEST_NAME_BYTES = 200


RESERVED_NAMES = frozenset({"index.html", "gallery"})


Stamp = tuple[int, int, int]
"""Inode, mtime_ns and ctime_ns of a folder: they change when something is made, removed or renamed in it."""


@dataclass(frozen=True)
class UploadEntry:
    """One folder in `inputs/`.

    disk_name: as it is on disk. name: the one used everywhere else; the same, unless that cannot be shown.
    fault: empty, or a sentence why this can be no upload.
    stamp: tells whether something was made or removed in it.
    """

    disk_name: str
    name: str
    fault: str = ""
    stamp: Stamp = field(default=(0, 0, 0), compare=False)


@dataclass(frozen=True)
class Scan:
    """What lies in `inputs/`, each in the order of its names; dot-names and litter left out.

    loose: files that lie directly in it, and belong to no upload. system: folders that a file server or an operating
    system made.
    """

    uploads: tuple[UploadEntry, ...]
    loose: tuple[str, ...]
    system: tuple[str, ...]


def scan(inputs: Path) -> Scan:
    """List `inputs/`. A symlink to a folder is an upload with a fault. Raises StorageError if it cannot be read."""
    uploads: list[UploadEntry] = []
    loose: list[str] = []
    system: list[str] = []
    try:
        with os.scandir(inputs) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    if is_system_folder(entry.name):
                        system.append(entry.name)
                    elif (upload := _upload_entry(entry)) is not None:
                        uploads.append(upload)
                elif not is_litter(entry.name):
                    loose.append(entry.name)
    except OSError as error:
        raise StorageError(
            f"The folder {inputs} cannot be read: {error.strerror}.", hint="Make it again, or mount it."
        ) from error
    uploads.sort(key=lambda entry: entry.disk_name)
    return Scan(tuple(uploads), tuple(sorted(loose)), tuple(sorted(system)))


def _upload_entry(entry: os.DirEntry[str]) -> UploadEntry | None:
    name = entry.name
    if entry.is_symlink():
        return UploadEntry(name, _shown_name(name), "it is a symbolic link. Upload a real folder.")
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # it is just being removed
    fault = _fault(name)
    stamp = (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)
    return UploadEntry(name, _shown_name(name) if fault else name, fault, stamp)


def _fault(name: str) -> str:
    """A sentence why a folder of this name can be no upload, or nothing."""
    if not can_be_shown(name):
        return "its name has characters that cannot be shown. Rename it."
    if len(name) > LONGEST_NAME_BYTES // 4 and len(os.fsencode(name)) > LONGEST_NAME_BYTES:
        return f"its name is longer than {LONGEST_NAME_BYTES} bytes. Rename it."
    return "its name is taken by a page in outputs/. Rename it." if name in RESERVED_NAMES else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Is it a folder, or a symlink to one?"""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _shown_name(name: str) -> str:
    """The name in characters that can be shown, and short enough for a file name."""
    shown = "".join(part if part.isprintable() else repr(part)[1:-1] for part in name)
    if shown == name and name not in RESERVED_NAMES and len(os.fsencode(name)) <= LONGEST_NAME_BYTES:
        return name
    return f"{shown[:40]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
