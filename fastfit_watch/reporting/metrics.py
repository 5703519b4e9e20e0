"""Metrics for Prometheus: a file for node_exporter's textfile collector, and an HTTP endpoint on a loopback address.

Gauges are read from the ledger when somebody asks. Counters count since the daemon's start, as Prometheus expects; the
messages of the engine processes feed them. prometheus_client writes the text exposition format 0.0.4.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Gauge, Summary, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

import fastfit_watch
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError, FastFitError
from fastfit_watch.domain.job import LookResult, LookStatus, Status
from fastfit_watch.domain.worker_protocol import (
    CannotLoad,
    Event,
    LookDone,
    LookFailed,
    LookWithheld,
    Message,
    Ready,
    RungLowered,
    WorkerExited,
)
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.queries import count_unfinished_looks, oldest_since
from fastfit_watch.system.atomic_write import write_text
from fastfit_watch.system.stoppable_thread import StoppableThread

_REQUEST_S = 5.0
_MOST_CONNECTIONS = 16
_JOIN_S = 2.0
_PREFIX = "fastfit"
_OPEN_LOOKS = (LookStatus.QUEUED, LookStatus.RUNNING)

disable_created_metrics()  # type: ignore[no-untyped-call]  # the start time is a metric already


class EngineCounters:
    """Counts what the engine processes report. One thread counts, others may read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: Any = {"registry": self.registry, "namespace": _PREFIX}
        self._stage_s = Summary("stage_seconds", "Wall seconds of a picture by stage.", ["stage"], **options)
        self._pictures = Counter("pictures", "Pictures made.", ["device"], **options)
        self._failures = Counter("failures", "Failed attempts by reason.", ["reason"], **options)
        self._shortages = Counter("memory_shortages", "Memory rungs that ran out of memory.", ["rung"], **options)
        self._exits = Counter("engine_exits", "Engine processes that ended.", ["device"], **options)
        self._loads = Counter("engine_loads", "Engine processes that became ready.", ["device"], **options)
        self._lookups = Counter("cache_lookups", "Cache lookups by outcome.", ["kind", "outcome"], **options)
        self._peak = Gauge("peak_vram_bytes", "Peak GPU memory of the newest picture.", ["device"], **options)
        self._ready = Gauge("engine_ready", "1 if the engine process takes pictures.", ["device"], **options)

    def count(self, events: Iterable[Event]) -> None:
        """Count these events."""
        for event in events:
            if isinstance(event, WorkerExited):
                self._exits.labels(event.device).inc()
                self._ready.labels(event.device).set(0)
            else:
                self._count_message(event.message, event.device)

    def _count_message(self, message: Message, device: str) -> None:
        match message:
            case Ready():
                self._loads.labels(device).inc()
                self._ready.labels(device).set(1)
            case CannotLoad():
                self._failures.labels("cannot_load").inc()
                self._ready.labels(device).set(0)
            case LookDone(result=result):
                self._count_result(result, device)
            case LookWithheld():
                self._failures.labels("withheld").inc()
            case RungLowered(tried=tried):
                self._shortages.labels(tried.value).inc()
            case LookFailed(kind=kind):
                self._failures.labels(kind.value).inc()

    def _count_result(self, result: LookResult, device: str) -> None:
        self._pictures.labels(device).inc()
        for stage, seconds in result.seconds.items():
            self._stage_s.labels(stage).observe(seconds)
        for lookup, times in result.cache.items():
            kind, _, outcome = lookup.partition(".")
            self._lookups.labels(kind, outcome).inc(times)
        if result.peak_vram_bytes is not None:
            self._peak.labels(device).set(result.peak_vram_bytes)


class _LedgerState(Collector):
    """Collects what ledger and disks hold at one moment. now_s: Unix time."""

    def __init__(self, config: Config, ledger: Ledger, began_s: float, now_s: float, *, up: bool) -> None:
        self._config, self._ledger, self._began_s, self._now_s, self._up = config, ledger, began_s, now_s, up

    def collect(self) -> Iterator[Metric]:
        """Yield every gauge. Raises StorageError where the ledger cannot be read."""
        ledger = self._ledger
        counts, looks, pending = ledger.counts(), count_unfinished_looks(ledger), ledger.outbox.pending()
        oldest = {status.value: self._age_s(since_s) for status, since_s in oldest_since(ledger).items()}
        info = GaugeMetricFamily(f"{_PREFIX}_build_info", "Version and weights.", labels=["version", "bundle"])
        info.add_metric([fastfit_watch.__version__, self._config.bundle], 1.0)
        yield info
        yield _gauge("up", "1 while the daemon runs.", self._up)
        yield _gauge("start_time_seconds", "Unix time of the daemon's start.", self._began_s)
        yield _gauge("paused", "1 if the queue is paused.", ledger.requests.paused() is not None)
        yield _gauges("jobs", "Jobs by state.", "status", {each.value: counts.get(each, 0) for each in Status})
        yield _gauges("oldest_job_age_seconds", "Age of the oldest unfinished job by state.", "status", oldest)
        yield _gauges("looks", "Pictures to be made.", "status", {each.value: looks[each] for each in _OPEN_LOOKS})
        yield _gauges(
            "notifications_pending",
            "Webhook messages and hooks still to be sent.",
            "channel",
            {channel: count for channel, (count, _) in pending.items()},
        )
        yield _gauges(
            "oldest_notification_age_seconds",
            "Age of the oldest of them.",
            "channel",
            {channel: self._age_s(since_s) for channel, (_, since_s) in pending.items()},
        )
        folders = {"outputs": self._config.outputs, "inputs": self._config.inputs}
        free = {name: _free_bytes(folder) for name, folder in folders.items()}
        yield _gauges("free_bytes", "Free disk space.", "folder", free)

    def _age_s(self, since_s: float) -> float:
        return max(0.0, self._now_s - since_s)


class MetricsExporter:
    """Publishes the metrics while the daemon runs, from threads of its own."""

    def __init__(self, config: Config, ledger_path: Path) -> None:
        """Raises ConfigError if the address cannot be bound."""
        self.counters = EngineCounters()
        self._config, self._ledger = config, Ledger(ledger_path, read_only=True)
        self._began_s = time.time()
        self._trouble = ""
        self._server = _bind(config.metrics.listen, self) if config.metrics.listen else None
        self._threads: list[StoppableThread] = []
        if self._server is not None:
            self._threads.append(StoppableThread("metrics-http", self._server.serve_forever, self._server.shutdown))
        if config.metrics.textfile:
            self._file_thread = StoppableThread("metrics-file", self._write_repeatedly)
            self._threads.append(self._file_thread)

    @property
    def address(self) -> str | None:
        """The bound address, as `127.0.0.1:9469`; None without an endpoint."""
        return None if self._server is None else "{}:{}".format(*self._server.server_address[:2])

    def start(self) -> None:
        """Start the endpoint and the file, whichever the settings ask for."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop publishing; the file then says that the daemon is down."""
        for thread in self._threads:
            if thread.is_alive:
                thread.stop(_JOIN_S)
        if self._server is not None:
            self._server.server_close()
        if self._config.metrics.textfile:
            self._write(up=False)
        self._ledger.close()

    def text(self, now_s: float, *, up: bool = True) -> str:
        """Return every metric in Prometheus' text format. Raises StorageError where the ledger cannot be read."""
        state = _LedgerState(self._config, self._ledger, self._began_s, now_s, up=up)
        return (generate_latest(state) + generate_latest(self.counters.registry)).decode()

    def _write_repeatedly(self) -> None:
        while True:
            self._write(up=True)
            if self._file_thread.wait(self._config.metrics.every_s):
                return

    def _write(self, *, up: bool) -> None:
        """Write the file whole, readable for node_exporter's account; log the first of equal failures."""
        path, trouble = Path(self._config.metrics.textfile), ""
        try:
            write_text(path, self.text(time.time(), up=up), mode=0o644)
        except (FastFitError, OSError) as error:
            trouble = str(error)
            if trouble != self._trouble:
                logger.warning("the metrics cannot be written: {}", trouble)
        self._trouble = trouble


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", help, value=value)


def _gauges(name: str, help: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}_{name}", help, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _free_bytes(path: Path) -> float:
    try:
        return float(shutil.disk_usage(path).free)
    except OSError:
        return float("nan")


def _bind(address: str, metrics: MetricsExporter) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_S

        def do_GET(self) -> None:
            """Answer with the metrics."""
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "Ask for /metrics")
                return
            try:
                data = metrics.text(time.time()).encode()
            except FastFitError as error:
                self.send_error(503, str(error)[:200].encode("ascii", "replace").decode())
                return
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing: a request every few seconds is no news."""

    class Server(ThreadingHTTPServer):
        """Serves each connection in a thread, so that a silent one delays no other; refuses what goes beyond."""

        daemon_threads = True
        free = threading.BoundedSemaphore(_MOST_CONNECTIONS)

        def process_request(self, request: Any, client_address: Any) -> None:
            if self.free.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.free.release()

        def handle_error(self, request: object, client_address: object) -> None:
            """Log nothing: the client has gone away."""

    host, _, port = address.rpartition(":")
    try:
        return Server((host.strip("[]"), int(port)), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"metrics.listen {address} cannot be bound: {error}.") from error
