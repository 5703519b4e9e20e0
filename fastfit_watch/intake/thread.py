"""Runs the intake loop in a thread of its own, for the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import Job
from fastfit_watch.intake.claim import UploadClaimer
from fastfit_watch.intake.decoder_pool import DecoderPool
from fastfit_watch.intake.loop import IntakeLoop
from fastfit_watch.intake.watcher import Doorbell, Watcher
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.stoppable_thread import StoppableThread


class IntakeThread:
    """Runs the intake loop, and makes it anew when settings change: it keeps nothing that it could not find again."""

    def __init__(
        self, config: Config, ledger: Ledger, claimer: UploadClaimer, on_change: Callable[[Job], None]
    ) -> None:
        self._config, self._ledger, self._claimer, self._on_change = config, ledger, claimer, on_change
        self._doorbell = Doorbell()
        self._watcher = Watcher(config.inputs, self._doorbell, config.watch.events)
        self._adopted: Config | None = None
        self._thread = StoppableThread("intake", self._work, wake=self._doorbell.ring)
        self._has_judged_all = False

    @property
    def mode(self) -> str:
        """How uploads are found: "events", or "polling: " and why."""
        return self._watcher.mode

    @property
    def is_alive(self) -> bool:
        """Is the thread running, or was it asked to stop?"""
        return self._thread.is_alive or self._thread.is_stopping

    def start(self) -> None:
        """Begin to scan."""
        self._thread.start()

    def adopt(self, config: Config) -> None:
        """Use these settings from the next scan on."""
        self._adopted = config
        self._doorbell.ring()

    def request_stop(self) -> None:
        """Take no more uploads."""
        self._thread.request_stop()

    def stop(self, timeout_s: float) -> None:
        """Stop, and wait for it at most `timeout_s`: an interrupted validation loses nothing."""
        self._thread.stop(timeout_s)

    def has_judged_all(self) -> bool:
        """Did the last scan, by all that this process could observe, take every upload that is complete?"""
        return self._has_judged_all

    def _work(self) -> None:
        self._watcher.start()
        decoder, intake = self._make()
        try:
            while not self._thread.is_stopping:
                if self._adopted is not None:
                    self._config, self._adopted = self._adopted, None
                    decoder.close()
                    decoder, intake = self._make()
                intake.wait(self._step(intake))
        finally:
            intake.tidy()
            decoder.close()
            self._watcher.stop()

    def _step(self, intake: IntakeLoop) -> float:
        self._has_judged_all = False
        try:
            wait_s = intake.step(time.time(), time.monotonic())
        except Exception:  # noqa: BLE001 - one scan that fails must not leave all later uploads unseen
            logger.exception("a scan of {} failed", self._config.inputs)
            return self._config.watch.scan_s
        self._has_judged_all = intake.has_judged_all
        return wait_s

    def _make(self) -> tuple[DecoderPool, IntakeLoop]:
        config = self._config
        decoder = DecoderPool(config.limits)
        parts = (config, self._ledger, self._claimer, decoder, self._watcher, self._doorbell)
        return decoder, IntakeLoop(*parts, on_change=self._on_change)
