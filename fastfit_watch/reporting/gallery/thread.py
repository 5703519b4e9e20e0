"""The gallery's own thread: shrinking large photographs must not make a status line wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import FastFitError
from fastfit_watch.domain.job import LookProgress
from fastfit_watch.reporting.gallery.publish import Gallery
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.stoppable_thread import StoppableThread

_ROUND_S = 1.0
_BUDGET_S = 0.5
_SHARE = 9  # the gallery takes at most a tenth of one core
_LAST_BUDGET_S = 10.0


class GalleryThread:
    """Brings the gallery up to date about once a second, as long as that costs little."""

    def __init__(
        self, config: Config, ledger: Ledger, read_state: Callable[[], tuple[Mapping[str, LookProgress], str]]
    ) -> None:
        """read_state: returns the look in hand of each job, and why nothing is made, or an empty text."""
        self._config, self._read_state = config, read_state
        self._gallery = Gallery(config, ledger)
        self._trouble = ""
        self._thread = StoppableThread("gallery", self._work)

    def start(self) -> None:
        """Start to publish."""
        self._thread.start()

    def request_stop(self) -> None:
        """Let the thread end after its present round."""
        self._thread.request_stop()

    def stop(self) -> None:
        """Wait for the thread's end, and publish what is left."""
        self._thread.stop()
        self._publish(_LAST_BUDGET_S)

    def note_report(self, job_id: str) -> None:
        """The report of this job is on disk: its page links to it from the next round on."""
        self._gallery.note_report(job_id)

    def _work(self) -> None:
        pause_s = 0.0
        while not self._thread.wait(pause_s):
            began_s = time.monotonic()
            self._publish(_BUDGET_S)
            pause_s = max(_ROUND_S, _SHARE * (time.monotonic() - began_s))

    def _publish(self, budget_s: float) -> None:
        """Bring the gallery up to date. A failure is tried again in the next round, and logged once."""
        trouble = ""
        try:
            progress, halt = self._read_state()
            self._gallery.publish(progress, halt, budget_s)
        except (FastFitError, OSError) as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001 - pages are no reason to end the thread
            trouble = repr(error)
            if trouble != self._trouble:
                logger.exception("the gallery in {} cannot be drawn", self._config.outputs)
        if trouble and trouble != self._trouble:
            logger.warning("cannot bring the gallery in {} up to date: {}", self._config.outputs, trouble)
        self._trouble = trouble
