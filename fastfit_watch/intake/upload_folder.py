"""Reading an upload without trusting it: everything is opened once, relative to a folder's handle, never by path again.

No symlink is followed, nothing here blocks on a FIFO, and a file that changes under our hands is noticed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastfit_watch.domain.errors import UploadError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.intake.fingerprint import FileMark, Fingerprint
from fastfit_watch.system.disk_errors import STORAGE_ERRNOS
from fastfit_watch.system.folders import CHUNK_BYTES, FILE_FLAGS, NEW_FILE_FLAGS, _write_all
from fastfit_watch.system.fsync_batch import FsyncBatch

# Files by which people without a shell give orders; they are no part of the upload.
ORDERS = ("RETRY", "CANCEL")
# Folders that file servers and archivers leave everywhere.
LITTER = frozenset({"@eaDir", "__MACOSX", "lost+found"})
KINDS = {
    stat.S_IFLNK: ("a symbolic link", "Upload the file itself."),
    stat.S_IFDIR: ("a folder", "Put the files directly in the upload's folder."),
    stat.S_IFIFO: ("a FIFO", "Upload plain files only."),
    stat.S_IFSOCK: ("a socket", "Upload plain files only."),
    stat.S_IFBLK: ("a device", "Upload plain files only."),
    stat.S_IFCHR: ("a device", "Upload plain files only."),
}


class FileChanged(Exception):  # noqa: N818 - a condition, not a fault: the upload is simply not finished
    """A file is not the one that was seen a moment ago."""


@dataclass(frozen=True)
class ControlFile:
    """A file RETRY or CANCEL. `identity` tells one such file from the next of the same name."""

    name: str
    identity: str


@dataclass(frozen=True)
class Listing:
    """What a folder holds at one moment.

    fingerprint: every plain file, hidden ones too, since a hidden file that grows is an upload going on. names: the
    files that count. faults: sentences about what may not be there.
    """

    fingerprint: Fingerprint
    names: tuple[str, ...]
    faults: tuple[str, ...]
    orders: tuple[ControlFile, ...]

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(mark.size for mark in self.fingerprint)

    @property
    def is_empty(self) -> bool:
        """Nothing is there, except perhaps an order."""
        return not self.fingerprint and not self.faults


def list_folder(folder_fd: int, limits: Limits) -> Listing:
    """Look at every entry of an open folder, without opening any. Stops soon after `limits.files` entries."""
    marks: list[FileMark] = []
    faults: list[str] = []
    names: list[str] = []
    orders: list[ControlFile] = []
    with os.scandir(folder_fd) as entries:
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            hidden = entry.name.startswith(".")
            if entry.name in ORDERS and not stat.S_ISDIR(facts.st_mode):
                orders.append(ControlFile(entry.name, f"{facts.st_ino}:{facts.st_ctime_ns}"))
            elif hidden or entry.name in LITTER:
                marks += [_mark(entry.name, facts)] if stat.S_ISREG(facts.st_mode) else []
            else:
                fault = _fault(entry.name, facts)
                faults += [fault] if fault else []
                # What is no plain file is part of the fingerprint too: mending it must be seen as a change.
                marks.append(_mark(entry.name, facts))
                names.append(entry.name)
            if len(marks) > 2 * limits.files:
                break
    if len(names) > limits.files:
        faults.append(f"it holds more than {limits.files} files. Split it into several folders.")
    if sum(mark.size for mark in marks) > limits.job_bytes:
        faults.append(f"it is larger than {limits.job_bytes / 1e6:.0f} MB. Split it into several folders.")
    return Listing(tuple(sorted(marks)), tuple(sorted(names)), tuple(sorted(faults)), tuple(orders))


def read_small(folder_fd: int, name: str, limit_bytes: int) -> bytes:
    """Return the bytes of a small text file of the upload. Raises UploadError if it is larger or no plain file."""
    with _opened(folder_fd, name) as file_fd:
        _refuse(name, os.fstat(file_fd), limit_bytes)
        text = b""
        while chunk := os.read(file_fd, CHUNK_BYTES):
            text += chunk
            if len(text) > limit_bytes:
                raise UploadError(_too_large(name, limit_bytes))
        return text


def copy_file(folder_fd: int, mark: FileMark, target_fd: int, limit_bytes: int, batch: FsyncBatch) -> str:
    """Copy one file of the upload into an open folder of ours. Returns its sha256; `batch` makes it durable.

    Raises FileChanged if it is not, or does not stay, the file of `mark`; UploadError if it is no plain file.
    """
    digest = hashlib.sha256()
    with _opened(folder_fd, mark.name) as source_fd:
        facts = os.fstat(source_fd)
        _refuse(mark.name, facts, limit_bytes)
        if _mark(mark.name, facts) != mark:
            raise FileChanged(mark.name)
        copy_fd = os.open(mark.name, NEW_FILE_FLAGS, 0o600, dir_fd=target_fd)
        try:
            copied = 0
            while chunk := os.read(source_fd, CHUNK_BYTES):
                copied += len(chunk)
                if copied > mark.size:
                    raise FileChanged(mark.name)
                digest.update(chunk)
                _write_all(copy_fd, chunk)
        except BaseException:
            os.close(copy_fd)
            raise
        batch.add(copy_fd)
        if _mark(mark.name, os.fstat(source_fd)) != mark:
            raise FileChanged(mark.name)
    return digest.hexdigest()


def is_open_for_writing(folder_fd: int, name: str) -> bool | None:
    """Does anyone have this file open for writing? None where the kernel does not tell.

    Asks for a read lease, which the kernel refuses while there is a writer (fcntl(2), F_SETLEASE). It is told only to
    the file's owner or with CAP_LEASE, and only on local filesystems.
    """
    try:
        with _opened(folder_fd, name) as file_fd:
            # A writer coming in this very moment would send SIGIO, which ends a process. SIGURG is ignored.
            fcntl.fcntl(file_fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(file_fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file_fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def remove_order(folder_fd: int, order: ControlFile) -> bool:
    """Remove the file of an order that was obeyed. False if the folder does not let us."""
    try:
        os.unlink(order.name, dir_fd=folder_fd)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in STORAGE_ERRNOS - {errno.EROFS}:
            raise
        return False
    return True


@contextmanager
def _opened(folder_fd: int, name: str) -> Iterator[int]:
    file_fd = os.open(name, FILE_FLAGS, dir_fd=folder_fd)
    try:
        yield file_fd
    finally:
        os.close(file_fd)


def _mark(name: str, facts: os.stat_result) -> FileMark:
    return FileMark(name, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _fault(name: str, facts: os.stat_result) -> str:
    """A sentence why this entry may not be in an upload, or nothing."""
    kind = KINDS.get(stat.S_IFMT(facts.st_mode))
    if kind is not None:
        return f"{name!r} is {kind[0]}. {kind[1]}"
    if facts.st_nlink > 1:
        return f"{name!r} is a hard link: the file has a second name elsewhere. Upload a copy of it."
    return "" if name.isprintable() else f"{name!r} has characters that cannot be shown. Rename it."


def _refuse(name: str, facts: os.stat_result, limit_bytes: int) -> None:
    """The same again, on the open file: what was listed may have been swapped since."""
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        raise UploadError(f"{name!r} is no plain file of its own.", hint="Upload a copy of it.")
    if facts.st_size > limit_bytes:
        raise UploadError(_too_large(name, limit_bytes))


def _too_large(name: str, limit_bytes: int) -> str:
    size = f"{limit_bytes / 1e6:.0f} MB" if limit_bytes >= 1e6 else f"{limit_bytes / 1024:.0f} KB"
    return f"{name!r} is larger than {size}. Upload a smaller file."
