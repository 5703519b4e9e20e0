"""Writes to standard error without ever making the caller wait for whoever reads it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

_MOST_WAITING = 2000


class StreamWriter:
    """Writes texts in a thread of its own: a terminal may be stopped (Ctrl-S), and a pipe may be full.

    on_dropped : called with a number of texts that were dropped meanwhile, once those that waited are written.
    """

    def __init__(self, stream: TextIO, on_dropped: Callable[[int], None]) -> None:
        self._stream, self._on_dropped = stream, on_dropped
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._dropped = 0
        threading.Thread(target=self._work, name="standard error", daemon=True).start()

    def write(self, text: str) -> None:
        """Queue a text. It is dropped, and counted, where too many are waiting already."""
        with self._changed:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(text)
                self._changed.notify_all()
            else:
                self._dropped += 1

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is written, at most so long; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                text = self._waiting[0]
            with contextlib.suppress(OSError, ValueError):  # whoever read it is gone
                self._write(text)
            with self._changed:
                self._waiting.popleft()
                dropped = 0
                if not self._waiting:
                    dropped, self._dropped = self._dropped, 0
                self._changed.notify_all()
            if dropped:
                self._on_dropped(dropped)

    def _write(self, text: str) -> None:
        try:
            handle = self._stream.fileno()
        except OSError:  # a stream in memory
            self._stream.write(text)
            return
        # Past the stream's own buffer: its lock, held by a write that waits, would keep the process from ending.
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(handle, data) :]
