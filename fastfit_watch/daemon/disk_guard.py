"""A full or failing disk: the queue stands still, and goes on by itself when the disk is well. No job is blamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.system.atomic_write import TEMPORARY, write_bytes
from fastfit_watch.system.backoff import backoff_s

_PROBE_BYTES = 256 * 1024
_PROBE_FIRST_S = 1.0
_PROBE_LAST_S = 30.0


class DiskGuard:
    """Watches the folders that everything is written to. `clock_s` is monotonic time.

    reason: why the queue stands still, for people; empty while it goes. `tell` is called with each new reason.
    """

    def __init__(self, folders: tuple[Path, ...], tell: Callable[[str], None]) -> None:
        self.reason = ""
        self._folders, self._tell = folders, tell
        self._probe_at_s = 0.0
        self._probes = 1

    def pause(self, reason: str, clock_s: float) -> None:
        """Stand still until the disk is well again."""
        if self.reason:
            return
        logger.error("the queue stands still: {}", reason)
        self.reason = reason
        self._probe_at_s = clock_s + backoff_s(self._probes, _PROBE_FIRST_S, _PROBE_LAST_S)
        self._tell(reason)

    def try_resume(self, min_free_bytes: int, clock_s: float) -> None:
        """Go on if there is room again, and every folder can be written to. Tried less and less often."""
        if not self.reason or clock_s < self._probe_at_s:
            return
        self._probes += 1
        self._probe_at_s = clock_s + backoff_s(self._probes, _PROBE_FIRST_S, _PROBE_LAST_S)
        if self.shortage(min_free_bytes) is not None:
            return
        for folder in self._folders:
            probe = folder / f"{TEMPORARY}probe"
            try:
                write_bytes(probe, os.urandom(_PROBE_BYTES))
                probe.unlink()
            except (StorageError, OSError):
                return
        logger.info("the disk is well again, the queue goes on")
        self.reason = ""
        self._tell("")

    def note_success(self) -> None:
        """Something was written: the next standstill is probed often again."""
        self._probes = 1

    def shortage(self, min_free_bytes: int) -> str | None:
        """A sentence if too little space is free."""
        for folder in self._folders:
            try:
                free = shutil.disk_usage(folder).free
            except OSError as error:
                return f"the folder {folder} cannot be used: {error.strerror}. Make it again, or mount it."
            if free < min_free_bytes:
                return (
                    f"only {free / 1e6:.0f} MB are free for {folder}; {min_free_bytes / 1e6:.0f} MB"
                    " are kept free. Free some space; work goes on by itself."
                )
        return None
