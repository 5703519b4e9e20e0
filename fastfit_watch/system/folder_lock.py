"""Holds a folder for one process, so that two daemons never work in it at once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from fastfit_watch.system.folders import FOLDER_FLAGS

# What network file systems answer that cannot lock a folder: there the file in it is the only lock.
_NO_FOLDER_LOCKS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP})
_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderTaken(Exception):  # noqa: N818 - a condition
    """Another process holds the folder. holder: its process id, or `unknown`."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class FolderLock:
    """A lock on a folder and on a file in it, which names the holder. It ends with the process.

    Removing the file frees nothing where the folder itself can be locked.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._folder_fd: int | None = None
        self._file_fd: int | None = None

    def take(self) -> None:
        """Hold the folder, which must exist. Raises FolderTaken, or OSError where it cannot be opened."""
        self.release()
        self._folder_fd = os.open(self._folder, FOLDER_FLAGS)
        try:
            self._file_fd = self._open_file(self._folder_fd)
            with contextlib.suppress(_NoLocksError):
                _lock(self._folder_fd, self._file_fd)
            _lock(self._file_fd, self._file_fd)
            _write_holder(self._file_fd)
        except BaseException:
            self._close()
            raise

    def release(self) -> None:
        """Leave the folder to another process."""
        if self._file_fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file_fd, 0)  # whoever sends a signal to the process named there must find none
        self._close()

    def is_held(self) -> bool:
        """Is the held folder still the one at its path? A lock file that was removed is made again.

        False after the folder was removed or mounted anew, or where another process has a lock file of its own in it.
        """
        if self._folder_fd is None or self._file_fd is None:
            return False
        try:
            if not os.path.samestat(os.fstat(self._folder_fd), self._folder.stat()):
                return False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file_fd), (self._folder / self._name).lstat()):
                    return True
            file_fd = self._open_file(self._folder_fd)
        except OSError:
            return False
        try:
            _lock(file_fd, file_fd)
        except FolderTaken:
            os.close(file_fd)
            return False
        _write_holder(file_fd)
        os.close(self._file_fd)
        self._file_fd = file_fd
        return True

    def _open_file(self, folder_fd: int) -> int:
        return os.open(self._name, _FILE_FLAGS, 0o600, dir_fd=folder_fd)

    def _close(self) -> None:
        for handle in (self._file_fd, self._folder_fd):
            if handle is not None:
                os.close(handle)
        self._file_fd = self._folder_fd = None


class _NoLocksError(Exception):
    """The file system cannot lock what was asked for."""


def _lock(handle: int, file_fd: int) -> None:
    """Lock an open file or folder. file_fd: the lock file, for the holder's process id."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(file_fd, 20, 0).decode("ascii", "replace").strip()
        raise FolderTaken(holder or "unknown") from error
    except OSError as error:
        if handle != file_fd and error.errno in _NO_FOLDER_LOCKS:
            raise _NoLocksError from error
        raise


def _write_holder(file_fd: int) -> None:
    """Name this process in the lock file. It is only for people: a full disk is no reason not to start."""
    with contextlib.suppress(OSError):
        os.ftruncate(file_fd, 0)
        os.pwrite(file_fd, f"{os.getpid()}\n".encode(), 0)
