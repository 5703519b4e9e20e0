"""Everyone outside who is told: webhook, hook and metrics, each in threads of its own, each off unless it is wanted."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.worker_protocol import Event
from fastfit_watch.reporting.metrics import MetricsExporter
from fastfit_watch.reporting.notifications.delivery import DeliveryThread
from fastfit_watch.reporting.notifications.hook import HookRunner
from fastfit_watch.reporting.notifications.webhook import WebhookDeliverer, read_secret
from fastfit_watch.storage.outbox import Outbox


class Integrations:
    """Starts, feeds and stops those who carry news out of the house. None of it makes the daemon's loops wait."""

    def __init__(self, config: Config, ledger_path: Path) -> None:
        """Raises ConfigError if the webhook's secret or the metrics' address cannot be had."""
        self._outboxes: list[Outbox] = []
        self._couriers: list[DeliveryThread] = []
        if config.webhook.url:
            read_secret(config.webhook)
            self._add("webhook", WebhookDeliverer(config.webhook, self._open(ledger_path)))
        if config.hook.command:
            self._add("hook", HookRunner(config.hook, self._open(ledger_path)))
        wanted = config.metrics.textfile or config.metrics.listen
        self._metrics = MetricsExporter(config, ledger_path) if wanted else None

    def start(self) -> None:
        """Begin to tell."""
        for delivery in self._couriers:
            delivery.start()
        if self._metrics is not None:
            self._metrics.start()

    def hear(self, events: Iterable[Event]) -> None:
        """Take note of what the engine processes say."""
        if self._metrics is not None:
            self._metrics.tally.hear(events)

    def finish(self, patience_s: float) -> None:
        """Tell what is due, for at most so long, and stop. Letters that are left go out after the next start."""
        deadline_s = time.monotonic() + patience_s
        for delivery in self._couriers:
            delivery.finish(max(0.0, deadline_s - time.monotonic()))
        if self._metrics is not None:
            self._metrics.finish()
        for outbox in self._outboxes:
            outbox.close()

    def _open(self, ledger_path: Path) -> Outbox:
        self._outboxes.append(Outbox(ledger_path))
        return self._outboxes[-1]

    def _add(self, name: str, carrier: WebhookDeliverer | HookRunner) -> None:
        self._couriers.append(DeliveryThread(name, carrier))
