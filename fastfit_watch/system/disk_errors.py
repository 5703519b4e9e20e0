"""Tells errors of the disk from errors of an upload."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from fastfit_watch.domain.errors import StorageError

_SENTENCES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk reports an I/O error",
    errno.EROFS: "the file system is read-only",
}
STORAGE_ERRNOS = frozenset(_SENTENCES)


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn errors of a full or failing disk into StorageError; others pass. `doing`: "copying 'spring'"."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRNOS:
            raise
        raise StorageError(
            f"{doing[0].upper()}{doing[1:]} failed: {_SENTENCES[error.errno]}.",
            hint="Free some space or check the disk; work goes on by itself.",
        ) from error
