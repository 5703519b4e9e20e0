"""Numbers for Prometheus: a file for node_exporter's textfile collector, and an answer on a loopback address.

Gauges are read from the ledger when they are asked for. Counters count since the daemon's start, as Prometheus expects;
they are fed with what the engine processes say. Format: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError, FastFitError
from fastfit_watch.domain.job import LookResult, LookStatus, Status
from fastfit_watch.domain.worker_protocol import (
    CannotLoad,
    Event,
    LookDone,
    LookFailed,
    LookWithheld,
    Ready,
    RungLowered,
    WorkerExited,
)
from fastfit_watch.storage.numbers import Numbers
from fastfit_watch.system.atomic_write import write_text

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_S = 5.0
_JOIN_S = 2.0

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """One metric. kind: gauge, counter or summary. samples: (suffix, labels, value)."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[str, Labels, float], ...]


class EngineCounters:
    """Counts what the engine processes say. One thread counts, others may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage_s: dict[str, float] = {}
        self._stage_looks: Counter[str] = Counter()
        self._pictures: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._shortages: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._loads: Counter[str] = Counter()
        self._cache: Counter[str] = Counter()
        self._peak_bytes: dict[str, int] = {}
        self._ready: dict[str, bool] = {}

    def hear(self, events: Iterable[Event]) -> None:
        """Count what these events tell."""
        for event in events:
            with self._lock:
                self._count(event)

    def families(self) -> list[Family]:
        """Everything counted so far."""
        with self._lock:
            seconds = [
                sample
                for stage in self._stage_s
                for sample in (
                    ("_sum", (("stage", stage),), self._stage_s[stage]),
                    ("_count", (("stage", stage),), float(self._stage_looks[stage])),
                )
            ]
            pairs = (tuple(key.partition("."))[::2] for key in self._cache)
            cache = [
                ("", (("kind", kind), ("outcome", outcome)), float(self._cache[f"{kind}.{outcome}"]))
                for kind, outcome in pairs
            ]
            return [
                Family("stage_seconds", "summary", "Wall seconds of a picture by stage.", tuple(seconds)),
                _counted("pictures_total", "Pictures made.", "device", self._pictures),
                _counted("failures_total", "Failed attempts by reason.", "reason", self._failures),
                _counted("shortages_total", "Rungs that ran out of memory.", "rung", self._shortages),
                _counted("engine_ends_total", "Engine processes that ended.", "device", self._ends),
                _counted("engine_loads_total", "Engine processes that became ready.", "device", self._loads),
                Family("cache_lookups_total", "counter", "What was found in a cache, and what not.", tuple(cache)),
                _measured("peak_vram_bytes", "Most GPU memory of the newest picture.", "device", self._peak_bytes),
                _measured("engine_ready", "Does the engine process take pictures?", "device", self._ready),
            ]

    def _count(self, event: Event) -> None:
        if isinstance(event, WorkerExited):
            self._ends[event.device] += 1
            self._ready[event.device] = False
            return
        message, device = event.message, event.device
        if isinstance(message, Ready):
            self._loads[device] += 1
            self._ready[device] = True
        elif isinstance(message, CannotLoad):
            self._failures["cannot_load"] += 1
            self._ready[device] = False
        elif isinstance(message, LookDone):
            self._count_result(device, message.result)
        elif isinstance(message, LookWithheld):
            self._failures["withheld"] += 1
        elif isinstance(message, RungLowered):
            self._shortages[message.tried.value] += 1
        elif isinstance(message, LookFailed):
            self._failures[message.kind.value] += 1

    def _count_result(self, device: str, result: LookResult) -> None:
        self._pictures[device] += 1
        for stage, seconds in result.seconds.items():
            self._stage_s[stage] = self._stage_s.get(stage, 0.0) + seconds
            self._stage_looks[stage] += 1
        self._cache.update(result.cache)
        if result.peak_vram_bytes is not None:
            self._peak_bytes[device] = result.peak_vram_bytes


class MetricsExporter:
    """Publishes the numbers while the daemon runs, from threads of its own."""

    def __init__(self, config: Config, ledger_path: Path) -> None:
        """Raises ConfigError if the address cannot be had."""
        self.tally = EngineCounters()
        self._config, self._numbers = config, Numbers(ledger_path, read_only=True)
        self._began_s = time.time()
        self._trouble = ""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._server: HTTPServer | None = None
        if config.metrics.listen:
            self._server = _listen(config.metrics.listen, self)

    @property
    def address(self) -> str | None:
        """Where it answers: `127.0.0.1:9469`; None where it does not."""
        return None if self._server is None else "{}:{}".format(*self._server.server_address[:2])

    def start(self) -> None:
        """Begin to publish, where that is wanted."""
        if self._server is not None:
            self._threads.append(threading.Thread(target=self._server.serve_forever, name="metrics-http", daemon=True))
        if self._config.metrics.textfile:
            self._threads.append(threading.Thread(target=self._keep_file, name="metrics-file", daemon=True))
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Stop; the file says that the daemon is down."""
        self._stop.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        for thread in self._threads:
            thread.join(_JOIN_S)
        if self._config.metrics.textfile:
            self._write(up=False)
        self._numbers.close()

    def text(self, now_s: float, *, up: bool = True) -> str:
        """Every number as Prometheus reads it. Raises StorageError where the ledger cannot be read."""
        return render([*self._state(now_s, up), *self.tally.families()])

    def _state(self, now_s: float, up: bool) -> list[Family]:
        numbers, counts, oldest = self._numbers, self._numbers.counts(), self._numbers.oldest()
        looks, pending = numbers.looks_in_line(), numbers.pending()
        ages = {status.value: max(0.0, now_s - since_s) for status, since_s in oldest.items()}
        letters = {channel: count for channel, (count, _) in pending.items()}
        letter_ages = {channel: max(0.0, now_s - since_s) for channel, (_, since_s) in pending.items()}
        free = {place: _free_bytes(path) for place, path in self._paths().items()}
        info = (("version", metadata.version("fastfit-watch")), ("bundle", self._config.bundle))
        return [
            Family("build_info", "gauge", "Version and weights.", (("", info, 1.0),)),
            Family("up", "gauge", "Is the daemon at work?", (("", (), float(up)),)),
            Family("start_time_seconds", "gauge", "Unix time of its start.", (("", (), self._began_s),)),
            Family("paused", "gauge", "Is the queue paused?", (("", (), float(numbers.paused() is not None)),)),
            _measured("jobs", "Jobs by state.", "status", {status.value: counts.get(status, 0) for status in Status}),
            _measured("oldest_job_age_seconds", "Age of the oldest unfinished job by state.", "status", ages),
            _measured("looks", "Pictures in line.", "status", {status.value: looks[status] for status in _IN_LINE}),
            _measured("letters_pending", "Webhook messages and hooks still to be sent.", "channel", letters),
            _measured("oldest_letter_age_seconds", "Age of the oldest of them.", "channel", letter_ages),
            _measured("free_bytes", "Free disk space.", "place", free),
        ]

    def _paths(self) -> dict[str, Path]:
        return {"outputs": self._config.outputs, "inputs": self._config.inputs}

    def _keep_file(self) -> None:
        while True:
            self._write(up=True)
            if self._stop.wait(self._config.metrics.every_s):
                return

    def _write(self, *, up: bool) -> None:
        """Write the file whole. What fails is said once."""
        trouble = ""
        try:
            write_text(Path(self._config.metrics.textfile), self.text(time.time(), up=up))
        except (FastFitError, OSError) as error:
            trouble = str(error)
            if trouble != self._trouble:
                logger.warning("the metrics cannot be written: {}", trouble)
        self._trouble = trouble


_IN_LINE = (LookStatus.QUEUED, LookStatus.RUNNING)


def render(families: Iterable[Family]) -> str:
    """The text form. Every name begins with `fastfit_`."""
    lines: list[str] = []
    for family in families:
        name = f"fastfit_{family.name}"
        lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
        for suffix, labels, value in family.samples:
            inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            lines.append(f"{name}{suffix}{{{inner}}} {value!r}" if inner else f"{name}{suffix} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _counted(name: str, help: str, label: str, counts: Mapping[str, int]) -> Family:
    return Family(name, "counter", help, _samples(label, counts))


def _measured(name: str, help: str, label: str, values: Mapping[str, float]) -> Family:
    return Family(name, "gauge", help, _samples(label, values))


def _samples(label: str, values: Mapping[str, float]) -> tuple[tuple[str, Labels, float], ...]:
    return tuple(("", ((label, key),), float(value)) for key, value in values.items())


def _free_bytes(path: Path) -> float:
    try:
        return float(shutil.disk_usage(path).free)
    except OSError:
        return float("nan")


def _listen(address: str, metrics: MetricsExporter) -> HTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_S

        def do_GET(self) -> None:
            """Answer with the numbers."""
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "Ask for /metrics")
                return
            try:
                data = metrics.text(time.time()).encode()
            except FastFitError as error:
                self.send_error(503, str(error)[:200].encode("ascii", "replace").decode())
                return
            self.send_response(200)
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: one question every few seconds is no news."""

    class Server(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: whoever asked has gone away."""

    host, _, port = address.rpartition(":")
    try:
        return Server((host.strip("[]"), int(port)), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"metrics.listen {address} cannot be had: {error}.") from error
