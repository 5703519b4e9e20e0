"""Metrics: accepted by Prometheus' own parser, right in number, whole on disk, and only on the loopback address."""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastfit_watch.config.settings import Config
from fastfit_watch.config.settings import MetricsSettings as Settings
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import ClaimIntent, LookResult, Status
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.domain.worker_protocol import FailureKind, LookDone, LookFailed, Ready, WorkerExited, WorkerMessage
from fastfit_watch.reporting.metrics import MetricsExporter
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.outbox import WEBHOOK, Notification
from fastfit_watch.storage.spool import SpoolPaths

NOW_S = 1000.0
DASHBOARD = Path(__file__).parents[3] / "configs" / "grafana.json"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = Config(inputs=tmp_path / "inputs", outputs=tmp_path / "outputs")
    SpoolPaths(config.inputs).root.mkdir(parents=True)
    config.outputs.mkdir()
    return config.model_copy(update={"metrics": Settings(textfile=str(tmp_path / "fastfit.prom"))})


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    ledger = Ledger(SpoolPaths(config.inputs).ledger)
    yield ledger
    ledger.close()


@pytest.fixture
def metrics(config: Config, ledger: Ledger) -> Iterator[MetricsExporter]:
    metrics = MetricsExporter(config, ledger.path)
    yield metrics
    metrics.stop()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus' own parser makes of it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sent(message: Any, device: str = "cuda:0") -> WorkerMessage:
    return WorkerMessage(device, 1, message)


def result(**more: Any) -> LookResult:
    return LookResult("a.png", "ab" * 32, 4, 3, {"denoise": 1.5, "decode": 0.25}, 5 * 2**30, "cuda:0", **more)


def test_the_queue_in_numbers(metrics: MetricsExporter, ledger: Ledger) -> None:
    options = SamplingOptions(seed=7)
    for number, name in enumerate(("spring", "summer")):
        ledger.find_or_create_unclaimed(name, 900.0)
        looks = [Look("anna.jpg", f"look{each}", {Category.UPPER: "shirt.jpg"}, options) for each in range(3)]
        ledger.begin_claim(ClaimIntent(name, "outfit.yaml", looks, {}, name), 940.0 + 20 * number)
        ledger.finish_claim(name, 940.0 + 20 * number)
    ledger.start_attempt("summer", "anna.look0", 990.0)
    ledger.set_unclaimed_status(
        ledger.find_or_create_unclaimed('odd "name"\\', 950.0).id, Status.INVALID, "no manifest", 951.0
    )
    ledger.outbox.post([Notification(WEBHOOK, "1", "spring", "job.done", "{}", 970.0)])
    ledger.requests.pause("lunch", NOW_S)
    found = samples(metrics.text(NOW_S))
    assert found["fastfit_up", ()] == 1
    assert found["fastfit_paused", ()] == 1
    assert found["fastfit_jobs", (("status", "queued"),)] == 1
    assert found["fastfit_jobs", (("status", "done"),)] == 0
    assert found["fastfit_looks", (("status", "queued"),)] == 5
    assert found["fastfit_looks", (("status", "running"),)] == 1
    assert found["fastfit_oldest_job_age_seconds", (("status", "queued"),)] == 60
    assert found["fastfit_oldest_job_age_seconds", (("status", "invalid"),)] == 50
    assert found["fastfit_notifications_pending", (("channel", "webhook"),)] == 1
    assert found["fastfit_oldest_notification_age_seconds", (("channel", "webhook"),)] == 30
    assert found["fastfit_free_bytes", (("folder", "outputs"),)] > 0


def test_messages_of_the_engines_are_counted(metrics: MetricsExporter) -> None:
    metrics.counters.count([sent(Ready("cuda:0", "mini", 1.0, {})), sent(LookDone(1, result(cache={"person.hit": 2})))])
    metrics.counters.count([sent(LookDone(2, result(cache={"person.hit": 1, "garment.miss": 1})))])
    metrics.counters.count(
        [sent(LookFailed(3, FailureKind.MEMORY, "full")), sent(LookFailed(4, FailureKind.INPUT, "nobody"))]
    )
    metrics.counters.count([sent(LookFailed(5, FailureKind.MEMORY, "full")), WorkerExited("cuda:1", 1, -9)])
    found = samples(metrics.text(NOW_S))
    assert found["fastfit_pictures_total", (("device", "cuda:0"),)] == 2
    assert found["fastfit_stage_seconds_sum", (("stage", "denoise"),)] == 3.0
    assert found["fastfit_stage_seconds_count", (("stage", "denoise"),)] == 2
    assert found["fastfit_failures_total", (("reason", "memory"),)] == 2
    assert found["fastfit_failures_total", (("reason", "input"),)] == 1
    assert found["fastfit_engine_exits_total", (("device", "cuda:1"),)] == 1
    assert found["fastfit_engine_ready", (("device", "cuda:0"),)] == 1
    assert found["fastfit_engine_ready", (("device", "cuda:1"),)] == 0
    assert found["fastfit_peak_vram_bytes", (("device", "cuda:0"),)] == 5 * 2**30
    assert found["fastfit_cache_lookups_total", (("kind", "person"), ("outcome", "hit"))] == 3
    assert found["fastfit_cache_lookups_total", (("kind", "garment"), ("outcome", "miss"))] == 1


def test_labels_are_escaped(config: Config, ledger: Ledger) -> None:
    nasty = 'a"b\\c\nd'
    metrics = MetricsExporter(config.model_copy(update={"bundle": nasty}), ledger.path)
    (info,) = [labels for name, labels in samples(metrics.text(NOW_S)) if name == "fastfit_build_info"]
    assert dict(info)["bundle"] == nasty
    metrics.stop()


def test_every_family_has_help_and_a_type(metrics: MetricsExporter) -> None:
    families = list(text_string_to_metric_families(metrics.text(NOW_S)))
    assert len(families) > 15
    assert all(family.documentation and family.type in ("gauge", "counter", "summary") for family in families)


def test_the_file_is_whole_at_any_moment_and_says_in_the_end_that_it_is_over(
    config: Config, ledger: Ledger, request: pytest.FixtureRequest
) -> None:
    path = Path(config.metrics.textfile)
    umask = os.umask(0o027)  # as under the unit that `service` prints
    request.addfinalizer(lambda: os.umask(umask))
    metrics = MetricsExporter(
        config.model_copy(update={"metrics": Settings(textfile=str(path), every_s=0.01)}), ledger.path
    )
    metrics.start()
    seen: set[int] = set()
    while len(seen) < 20:
        if path.exists():
            text = path.read_text()
            assert text.endswith("\n") and samples(text)["fastfit_up", ()] == 1
            seen.add(path.stat().st_mtime_ns)
    metrics.stop()
    assert samples(path.read_text())["fastfit_up", ()] == 0
    assert path.stat().st_mode & 0o777 == 0o644, "node_exporter is another user"
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".tmp")] == []


def test_a_file_that_cannot_be_written_stops_no_one(config: Config, ledger: Ledger, tmp_path: Path) -> None:
    nowhere = Settings(textfile=str(tmp_path / "none" / "x.prom"))
    metrics = MetricsExporter(config.model_copy(update={"metrics": nowhere}), ledger.path)
    metrics.start()
    metrics.stop()


def test_the_endpoint_answers_and_knows_nothing_else(config: Config, ledger: Ledger) -> None:
    metrics = MetricsExporter(config.model_copy(update={"metrics": Settings(listen="127.0.0.1:0")}), ledger.path)
    metrics.start()
    assert metrics.address is not None
    try:
        with urllib.request.urlopen(f"http://{metrics.address}/metrics", timeout=20) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert samples(answer.read().decode())["fastfit_up", ()] == 1
        for path in ("/", "/../etc/passwd", "/metrics/more"):
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                urllib.request.urlopen(f"http://{metrics.address}{path}", timeout=20)
            refused.value.close()
    finally:
        metrics.stop()


def test_silent_connections_delay_no_answer(config: Config, ledger: Ledger) -> None:
    metrics = MetricsExporter(config.model_copy(update={"metrics": Settings(listen="127.0.0.1:0")}), ledger.path)
    metrics.start()
    assert metrics.address is not None
    host, port = metrics.address.split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(6)]
    try:
        with urllib.request.urlopen(f"http://{metrics.address}/metrics", timeout=4) as answer:
            assert samples(answer.read().decode())["fastfit_up", ()] == 1
    finally:
        for connection in silent:
            connection.close()
        metrics.stop()


def test_an_address_that_is_taken_is_refused_at_the_start(config: Config, ledger: Ledger) -> None:
    first = MetricsExporter(config.model_copy(update={"metrics": Settings(listen="127.0.0.1:0")}), ledger.path)
    first.start()
    taken = Settings(listen=first.address or "")
    with pytest.raises(ConfigError, match=r"metrics\.listen"):
        MetricsExporter(config.model_copy(update={"metrics": taken}), ledger.path)
    first.stop()


@pytest.mark.parametrize("address", ["0.0.0.0:9469", "192.168.1.2:9469", ":9469", "example.org:80", "127.0.0.1"])
def test_only_the_loopback_address_is_allowed(address: str) -> None:
    with pytest.raises(ValueError, match="listen"):
        Settings(listen=address)


def test_the_dashboard_asks_only_for_what_there_is(metrics: MetricsExporter) -> None:
    metrics.counters.count(
        [sent(LookDone(1, result(cache={"person.hit": 1}))), sent(LookFailed(2, FailureKind.INPUT, ""))]
    )
    known = set(re.findall(r"^# TYPE (\S+)", metrics.text(NOW_S), re.MULTILINE))
    text = DASHBOARD.read_text(encoding="utf-8")
    board = json.loads(text)
    asked = set(re.findall(r"fastfit_[a-z_]+", text))
    assert {re.sub("_(sum|count)$", "", name) for name in asked} <= known
    assert len(asked) >= 12
    assert all(target["expr"] for panel in board["panels"] for target in panel.get("targets", []))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
