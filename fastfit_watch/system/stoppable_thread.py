"""A thread that can be asked to end, and waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable


class StoppableThread:
    """Runs `work` in a thread. `work` returns soon after `is_stopping` becomes true.

    wake : called when the thread is asked to end, for a `work` that waits for something other than `wait`.
    """

    def __init__(self, name: str, work: Callable[[], None], wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=work, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        """Has the thread begun, and not ended?"""
        return self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        """Was the thread asked to end?"""
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin to work. May be called once."""
        self._thread.start()

    def wait(self, pause_s: float) -> bool:
        """Wait so long, but not beyond a request to end; returns whether there was one. Called by `work`."""
        return self._stopping.wait(pause_s)

    def request_stop(self) -> None:
        """Ask the thread to end, without waiting for it."""
        self._stopping.set()
        self._wake()

    def stop(self, timeout_s: float | None = None) -> None:
        """Ask the thread to end and wait for it: at most `timeout_s`, or for as long as it takes."""
        self.request_stop()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
