"""Many fsyncs at once: the disk writes its journal once for all that wait for it, instead of once for each."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

_OPEN = 128  # open files that wait at most; a process may have 1024
_THREADS = 8


class FsyncBatch:
    """Files and folders whose content is not yet durable. For one thread at a time."""

    def __init__(self) -> None:
        self._waiting: list[int] = []

    def add(self, handle: int) -> None:
        """Take an open file or folder over: it is closed once it is durable. Raises OSError as `sync` does."""
        self._waiting.append(handle)
        if len(self._waiting) >= _OPEN:
            self.sync()

    def sync(self) -> None:
        """Return when all are durable. Raises the first OSError; none of them may be relied on then."""
        waiting, self._waiting = self._waiting, []
        try:
            if len(waiting) < 3:
                for handle in waiting:
                    os.fsync(handle)
            else:
                with ThreadPoolExecutor(min(_THREADS, len(waiting)), "sync") as threads:
                    list(threads.map(os.fsync, waiting))
        finally:
            for handle in waiting:
                os.close(handle)
