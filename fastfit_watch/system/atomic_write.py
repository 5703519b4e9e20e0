"""Whole-file writes: a reader, a crash or a power cut sees the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from fastfit_watch.system.disk_errors import storage_errors
from fastfit_watch.system.failpoints import failpoint

TEMPORARY = ".tmp-"
"""Start of the name of a file that is being written. One left behind by a crash may be removed at any time."""


def write_bytes(path: Path, data: bytes, *, mode: int | None = None, durable: bool = True) -> None:
    """Write a file whole and durably: temporary file beside it, fsync, rename, fsync of the folder.

    mode: the file's permission bits, whatever the umask; None: 0644 as far as the umask lets.
    durable=False leaves both fsyncs out: still whole for every reader, but perhaps the old one after a power cut.

    Raises StorageError where the disk is full or failing; other OSErrors come out as they are.
    """
    # The name is short and its own: the target's name may be as long as a name can be, and two may write at once.
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with storage_errors(f"writing {path}"):
            failpoint("write.create")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            with os.fdopen(handle, "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                if durable:
                    failpoint("write.fsync")
                    os.fsync(file.fileno())
            if not durable:
                temporary.replace(path)
        if durable:
            commit(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, mode: int | None = None, durable: bool = True) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode(), mode=mode, durable=durable)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented for people, whole and durably."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def commit(temporary: Path, path: Path) -> None:
    """Make a finished, synced temporary file visible under its name, durably."""
    with storage_errors(f"writing {path}"):
        failpoint("write.rename")
        temporary.replace(path)
        failpoint("write.folder")
        sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, durably; one that exists is left alone."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with storage_errors(f"writing {path}"):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames and new names in a folder durable. Raises StorageError when the disk is full or failing."""
    with storage_errors(f"writing {path}"):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_temporaries(folder: Path, *, but_living: bool = False) -> None:
    """Remove what a killed process was still writing. but_living: spare files of processes that live, as engines do."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if not (but_living and _is_being_written(path.name)):
            path.unlink(missing_ok=True)


def _is_being_written(name: str) -> bool:
    """Does the process whose number is in the name of a temporary file live?"""
    number = name.removeprefix(TEMPORARY).partition("-")[0]
    return number.isdecimal() and Path("/proc", number).exists()
