"""Integrations with other programs: webhook, hook and metrics, each in threads of its own and off by default."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.worker_protocol import Event
from fastfit_watch.reporting.notifications.delivery import DeliveryThread
from fastfit_watch.reporting.notifications.hook import HookRunner
from fastfit_watch.reporting.notifications.webhook import WebhookDeliverer, read_secret
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.outbox import Outbox

if TYPE_CHECKING:
    from fastfit_watch.reporting.metrics import MetricsExporter


class Integrations:
    """Starts, feeds and stops the integrations. None of them makes the daemon's loops wait."""

    def __init__(self, config: Config, ledger_path: Path) -> None:
        """Raises ConfigError if the webhook's secret cannot be read or the metrics' address cannot be bound."""
        self._ledgers: list[Ledger] = []
        self._deliveries: list[DeliveryThread] = []
        if config.webhook.url:
            read_secret(config.webhook)
            webhook = WebhookDeliverer(config.webhook, self._open(ledger_path))
            self._deliveries.append(DeliveryThread("webhook", webhook))
        if config.hook.command:
            hook = HookRunner(config.hook, self._open(ledger_path))
            self._deliveries.append(DeliveryThread("hook", hook))
        self._metrics = _make_exporter(config, ledger_path)

    def start(self) -> None:
        """Start the threads."""
        for delivery in self._deliveries:
            delivery.start()
        if self._metrics is not None:
            self._metrics.start()

    def count(self, events: Iterable[Event]) -> None:
        """Count the events of the engine processes in the metrics."""
        if self._metrics is not None:
            self._metrics.counters.count(events)

    def stop(self, timeout_s: float) -> None:
        """Send what is due, for at most `timeout_s`, and stop. What is left is sent after the next start."""
        deadline_s = time.monotonic() + timeout_s
        for delivery in self._deliveries:
            delivery.request_stop(timeout_s)
        for delivery in self._deliveries:
            delivery.stop(max(0.0, deadline_s - time.monotonic()))
        if self._metrics is not None:
            self._metrics.stop()
        for ledger in self._ledgers:
            ledger.close()

    def _open(self, ledger_path: Path) -> Outbox:
        """Open the outbox with a connection of its own: whoever sends never makes the daemon's loops wait."""
        self._ledgers.append(Ledger(ledger_path))
        return self._ledgers[-1].outbox


def _make_exporter(config: Config, ledger_path: Path) -> MetricsExporter | None:
    """Make the exporter where the settings ask for one; nobody else waits for prometheus_client's import."""
    if not (config.metrics.textfile or config.metrics.listen):
        return None
    from fastfit_watch.reporting.metrics import MetricsExporter

    return MetricsExporter(config, ledger_path)
