"""The thread that delivers notifications: it never makes another thread wait, and no error ends it."""

from __future__ import annotations

import time
from typing import Protocol

from loguru import logger

from fastfit_watch.domain.errors import FastFitError
from fastfit_watch.system.stoppable_thread import StoppableThread

_AGAIN_S = 10.0
_LONGEST_WAIT_S = 2.0  # new notifications are found by asking the outbox


class Deliverer(Protocol):
    """Delivers one notification at a time."""

    def step(self, now_s: float) -> float:
        """Deliver a notification that is due at this Unix time; return the seconds until there may be another."""


class DeliveryThread:
    """Runs a deliverer in a thread of its own."""

    def __init__(self, name: str, deliverer: Deliverer) -> None:
        self._name, self._deliverer = name, deliverer
        self._deadline_s = float("inf")
        self._trouble = ""
        self._thread = StoppableThread(name, self._work)

    def start(self) -> None:
        """Start to deliver."""
        self._thread.start()

    def request_stop(self, drain_s: float) -> None:
        """Let the thread end once nothing is due any more, and after `drain_s` at the latest."""
        self._deadline_s = time.monotonic() + drain_s
        self._thread.request_stop()

    def stop(self, timeout_s: float) -> None:
        """Wait for the thread's end, for at most so long. What is left is delivered after the next start."""
        self._thread.stop(timeout_s)

    def _work(self) -> None:
        while time.monotonic() < self._deadline_s:
            is_last = self._thread.is_stopping
            wait_s = self._step()
            if is_last and wait_s > 0:
                return
            self._thread.wait(min(wait_s, _LONGEST_WAIT_S))

    def _step(self) -> float:
        try:
            wait_s = self._deliverer.step(time.time())
        except Exception as error:  # noqa: BLE001 - no notification may cost the daemon itself
            if str(error) != self._trouble:
                known = isinstance(error, FastFitError)
                logger.opt(exception=None if known else error).error("the {} does not work: {}", self._name, error)
            self._trouble = str(error)
            return _AGAIN_S
        self._trouble = ""
        return wait_s
