"""A thread that carries letters: it never makes anyone else wait, and no error ends it."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from loguru import logger

from fastfit_watch.domain.errors import FastFitError

_AGAIN_S = 10.0
_LONGEST_WAIT_S = 2.0  # letters come unannounced


class Deliverer(Protocol):
    """Carries one letter at a time."""

    def step(self, now_s: float) -> float:
        """Carry a letter that is due at this Unix time; return the seconds until there may be another."""


class DeliveryThread:
    """Lets a carrier work in a thread of its own."""

    def __init__(self, name: str, carrier: Deliverer) -> None:
        self._name, self._carrier = name, carrier
        self._doorbell = threading.Event()
        self._deadline_s = float("inf")
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin to carry."""
        self._thread.start()

    def finish(self, patience_s: float) -> None:
        """Carry what is due, for at most so long, and stop. What is left is carried after the next start."""
        self._deadline_s = time.monotonic() + patience_s
        self._doorbell.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _work(self) -> None:
        while True:
            stopping = self._deadline_s < float("inf")
            if time.monotonic() >= self._deadline_s:
                return
            wait_s = self._step()
            if stopping and wait_s > 0:
                return
            self._doorbell.wait(min(wait_s, _LONGEST_WAIT_S))
            self._doorbell.clear()

    def _step(self) -> float:
        try:
            wait_s = self._carrier.step(time.time())
        except Exception as error:  # noqa: BLE001 - telling others must never cost the daemon itself
            if str(error) != self._trouble:
                known = isinstance(error, FastFitError)
                logger.opt(exception=None if known else error).error("the {} stands still: {}", self._name, error)
            self._trouble = str(error)
            return _AGAIN_S
        self._trouble = ""
        return wait_s
