"""Reads an upload without trusting it: everything is opened once, relative to a folder's handle, never by path again.

No symlink is followed, nothing here blocks on a FIFO, and a file that changes while it is read is noticed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastfit_watch.domain.errors import UploadError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.intake.file_names import control_name, hidden_target, is_litter, is_partial
from fastfit_watch.intake.fingerprint import FileMark, Fingerprint
from fastfit_watch.system.disk_errors import STORAGE_ERRNOS
from fastfit_watch.system.folders import CHUNK_BYTES, FILE_FLAGS, NEW_FILE_FLAGS, _write_all
from fastfit_watch.system.fsync_batch import FsyncBatch

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
    """A file that asks for RETRY or CANCEL (`request`). identity: tells it from a later one of the same name."""

    name: str
    request: str
    identity: str


@dataclass(frozen=True)
class Listing:
    """What a folder holds at one moment.

    fingerprint: every plain file but litter, hidden ones too, since a hidden file that grows is an upload going on.
    names: the files that count. partial: what a client has not transferred to its end. faults: sentences about what
    may not be there, about the entries in `unusable`. has_litter: there are files that come with every copy.
    """

    fingerprint: Fingerprint
    names: tuple[str, ...]
    partial: tuple[str, ...]
    faults: tuple[str, ...]
    unusable: frozenset[str]
    control_files: tuple[ControlFile, ...]
    has_litter: bool

    @property
    def is_empty(self) -> bool:
        """Is nothing there, except perhaps control files and litter?"""
        return not (self.fingerprint or self.partial or self.faults)


def list_folder(folder_fd: int, limits: Limits) -> Listing:
    """List every entry of an open folder without opening any. Stops soon after `limits.files` entries."""
    marks: list[FileMark] = []
    faults: list[str] = []
    unusable: set[str] = set()
    names: list[str] = []
    hidden: list[str] = []
    partial: list[str] = []
    control_files: list[ControlFile] = []
    has_litter = False
    with os.scandir(folder_fd) as entries:
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            name, is_folder = entry.name, stat.S_ISDIR(facts.st_mode)
            if (request := control_name(name)) is not None and not is_folder:
                control_files.append(ControlFile(name, request, f"{facts.st_ino}:{facts.st_ctime_ns}"))
            elif is_litter(name):
                has_litter = True
            elif name.startswith("."):
                marks += [_mark(name, facts)] if stat.S_ISREG(facts.st_mode) else []
                hidden.append(name)
            elif is_partial(name) and (is_folder or stat.S_ISREG(facts.st_mode)):
                marks.append(_mark(name, facts))
                partial.append(name)
            else:
                if fault := _fault(name, facts):
                    faults.append(fault)
                    unusable.add(name)
                # What is no plain file is part of the fingerprint too: mending it must be seen as a change.
                marks.append(_mark(name, facts))
                names.append(name)
            if len(marks) > 2 * limits.files:
                break
    partial += [name for name in hidden if _is_hidden_partial(name, names)]
    if len(names) > limits.files:
        faults.append(f"it holds more than {limits.files} files. Split it into several folders.")
    if sum(mark.size for mark in marks) > limits.job_bytes:
        faults.append(f"it is larger than {limits.job_bytes / 1e6:.0f} MB. Split it into several folders.")
    return Listing(
        tuple(sorted(marks)),
        tuple(sorted(names)),
        tuple(sorted(partial)),
        tuple(sorted(faults)),
        frozenset(unusable),
        tuple(control_files),
        has_litter,
    )


def _is_hidden_partial(name: str, names: Collection[str]) -> bool:
    """Has a client left this hidden file for one that is not there?

    Where it is there, the client makes it anew, or an attempt that broke off left its partial file behind.
    """
    return is_partial(name) if (target := hidden_target(name)) is None else target not in names


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


def hash_upload_file(folder_fd: int, name: str) -> str:
    """Return the sha256 of one file of the upload."""
    with _opened(folder_fd, name) as file_fd, os.fdopen(os.dup(file_fd), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def remove_control_file(folder_fd: int, control_file: ControlFile) -> bool:
    """Remove a control file whose request was carried out. False if the folder does not let us."""
    try:
        os.unlink(control_file.name, dir_fd=folder_fd)
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
    return ""


def _refuse(name: str, facts: os.stat_result, limit_bytes: int) -> None:
    """Judge the open file once more: what was listed may have been replaced since."""
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        raise UploadError(f"{name!r} is no plain file of its own.", hint="Upload a copy of it.")
    if facts.st_size > limit_bytes:
        raise UploadError(_too_large(name, limit_bytes))


def _too_large(name: str, limit_bytes: int) -> str:
    size = f"{limit_bytes / 1e6:.0f} MB" if limit_bytes >= 1e6 else f"{limit_bytes / 1024:.0f} KB"
    return f"{name!r} is larger than {size}. Upload a smaller file."
