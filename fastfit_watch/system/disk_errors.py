"""Tells errors of the disk from errors of an upload."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from fastfit_watch.domain.errors import StorageError

STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """A full or failing disk becomes StorageError; other errors pass. `doing`: "copying 'spring' into the spool"."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRNOS:
            raise
        raise StorageError(
            f"{doing[0].upper()}{doing[1:]} failed: {error.strerror}.",
            hint="Free some space or check the disk; work goes on by itself.",
        ) from error
