"""Opens, makes and removes folders and files by handle, never twice by path."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastfit_watch.system.failpoints import failpoint

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# O_NONBLOCK: opening a FIFO or a device must not wait for its other end.
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


CHUNK_BYTES = 1024 * 1024


@contextmanager
def open_folder(path: Path | str, parent_fd: int | None = None) -> Iterator[int]:
    """Open a real folder, never a symlink to one, and close it at the end of the block."""
    folder_fd = os.open(path, FOLDER_FLAGS, dir_fd=parent_fd)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


def hash_file(path: Path, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """Return the SHA-256 of a file, in hexadecimal. `on_bytes` is called with the size of every part that is read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            on_bytes(len(data))
    return digest.hexdigest()


def make_private(name: str, parent_fd: int) -> None:
    """Make a folder that only the daemon may enter. One that is there already is kept. `parent_fd` is not synced."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent_fd)


def remove_folder(path: Path) -> None:
    """Remove a flat folder of ours and what is in it. One that is missing is fine."""
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


def _write_all(file_fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file_fd, view) :]


def remove_tree(name: str, parent_fd: int, on_file: Callable[[], None] = lambda: failpoint("retention.remove")) -> None:
    """Remove a folder and all in it, however deep, without following a symlink. One that is missing is fine.

    A symlink or a file of that name is not ours and stays. `on_file` is called before each removal.
    Raises OSError if something may not be removed.
    """
    try:
        top_fd = os.open(name, FOLDER_FLAGS, dir_fd=parent_fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        device = os.fstat(top_fd).st_dev
        while folders := _empty(top_fd, top_fd, device, on_file):
            for folder in folders:
                folder_fd = os.open(folder, FOLDER_FLAGS, dir_fd=top_fd)
                try:
                    _empty(folder_fd, top_fd, device, on_file)
                finally:
                    os.close(folder_fd)
                os.rmdir(folder, dir_fd=top_fd)
    finally:
        os.close(top_fd)
    on_file()
    os.rmdir(name, dir_fd=parent_fd)


def _empty(folder_fd: int, top_fd: int, device: int, on_file: Callable[[], None]) -> list[str]:
    """Remove the files of a folder, and move its folders up to the top, where they wait for their turn; their names.

    So a tree of any depth needs two handles and no recursion.
    """
    if os.fstat(folder_fd).st_dev != device:
        raise OSError(errno.EXDEV, "something is mounted in it")
    folders = []
    with os.scandir(folder_fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        on_file()
        if not is_folder:
            os.unlink(name, dir_fd=folder_fd)
        elif folder_fd == top_fd:
            folders.append(name)
        else:
            os.rename(name, f"{secrets.token_hex(8)}", src_dir_fd=folder_fd, dst_dir_fd=top_fd)
    return folders
