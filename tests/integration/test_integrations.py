"""The daemon's integrations: a webhook receiver that is away, hangs or refuses, a hook, and Prometheus."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks.webhooks import Webhook
from support.daemon_process import DaemonProcess, wait_for

from fastfit_watch.config.paths import LOG_FILE
from fastfit_watch.system.exit_codes import ExitCode

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="  # noqa: S105 - of these tests alone
JOBS = 12


class Receiver:
    """Checks and keeps what it is sent. May refuse it all, or let it wait for an answer."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.requests = 0
        self.answers = threading.Event()
        self.answers.set()
        self.code = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.requests += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = Webhook(SECRET).verify(body, dict(self.headers.items()))
                receiver.answers.wait(60)
                if receiver.code == 200:
                    message["complete"] = (Path(message["folder"]) / message["report"]).is_file()
                    receiver.heard.append(message)
                self.send_response(receiver.code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a daemon that was killed while it asked

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.answers.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def daemon(tmp_path: Path, receiver: Receiver) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    (tmp_path / "secret").write_text(SECRET)
    webhook = {"url": receiver.url, "secret_file": str(tmp_path / "secret"), "timeout_s": 60}
    add_settings(daemon, webhook={**webhook, "backoff_s": 0.2, "backoff_max_s": 0.5})
    yield daemon
    daemon.close()


def add_settings(daemon: DaemonProcess, **sections: Any) -> None:
    """Add sections to the daemon's settings."""
    path = daemon.root / "settings.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | sections))


def upload_all(daemon: DaemonProcess) -> list[str]:
    names = [f"job{number:02}" for number in range(JOBS)]
    for name in names:
        daemon.upload(name, "casual")
    return names


def pending(daemon: DaemonProcess) -> int:
    counts: dict[str, tuple[int, float]] = daemon.read(lambda ledger: ledger.outbox.pending())
    return sum(number for number, _ in counts.values())


def test_done_and_failed_jobs_are_sent_once_their_report_is_there(daemon: DaemonProcess, receiver: Receiver) -> None:
    daemon.upload("spring", "casual", "gala")
    daemon.upload("bad", "input")
    assert daemon.drain() == ExitCode.FAILED
    messages = {notification["job"]: notification for notification in receiver.heard}
    assert len(receiver.heard) == 2
    assert (messages["spring"]["event"], messages["bad"]["event"]) == ("job.done", "job.failed")
    assert [picture["file"] for picture in messages["spring"]["pictures"]] == ["anna.casual.png", "anna.gala.png"]
    assert messages["bad"]["pictures"][0]["reason"] == "Nobody is in the picture."
    assert all(notification["complete"] for notification in receiver.heard)
    assert "webhook job.done delivered at attempt 1" in (daemon.outputs / "spring" / "job.log").read_text()


def test_a_receiver_that_hangs_delays_no_picture(daemon: DaemonProcess, receiver: Receiver) -> None:
    """It keeps the first message waiting; meanwhile every job is made and reported."""
    receiver.answers.clear()
    daemon.upload("first", "casual")
    daemon.start()
    wait_for(lambda: receiver.requests, daemon)
    names = ["first", *upload_all(daemon)]
    wait_for(lambda: all(daemon.is_final(name) for name in names), daemon)
    wait_for(lambda: pending(daemon) == len(names), daemon)
    assert receiver.requests == 1 and receiver.heard == []
    receiver.answers.set()
    wait_for(lambda: len(receiver.heard) == len(names), daemon)
    assert sorted(notification["job"] for notification in receiver.heard) == sorted(names)


def test_a_receiver_that_hangs_does_not_keep_the_daemon_from_ending(daemon: DaemonProcess, receiver: Receiver) -> None:
    receiver.answers.clear()
    daemon.upload("spring", "casual")
    process = daemon.start()
    wait_for(lambda: receiver.requests, daemon)
    process.terminate()
    assert process.wait(30) == ExitCode.OK
    receiver.answers.set()
    assert daemon.drain() == ExitCode.OK
    assert {notification["job"] for notification in receiver.heard} == {"spring"}


def test_kill_9_loses_no_message_and_keeps_their_order(daemon: DaemonProcess, receiver: Receiver) -> None:
    receiver.code = 503
    names = upload_all(daemon)
    daemon.upload("twice", "engine")
    process = daemon.start()
    wait_for(lambda: all(daemon.is_final(name) for name in [*names, "twice"]) and receiver.requests > 2, daemon)
    daemon.read(lambda ledger: ledger.requests.retry("twice", time.time()))
    wait_for(lambda: pending(daemon) == JOBS + 2, daemon)
    process.kill()
    process.wait()
    receiver.code = 200
    daemon.start()
    wait_for(lambda: pending(daemon) == 0, daemon)
    ids = [notification["id"] for notification in receiver.heard]
    assert len(set(ids)) == JOBS + 2
    assert {notification["job"] for notification in receiver.heard} == {*names, "twice"}
    twice = [notification["created"] for notification in receiver.heard if notification["job"] == "twice"]
    assert twice == sorted(twice) and len(set(twice)) == 2


def test_a_webhook_without_its_secret_is_refused_at_the_start(daemon: DaemonProcess) -> None:
    (daemon.root / "secret").unlink()
    assert daemon.drain() != 0
    assert "webhook.secret_file" in (daemon.root / "stderr").read_text()


def test_a_hook_runs_beside_the_work_and_speaks_in_the_job_s_log(daemon: DaemonProcess, tmp_path: Path) -> None:
    program = "import os, time; time.sleep(0.3); print('delivered', os.environ['FASTFIT_JOB'], os.listdir('.'))"
    add_settings(daemon, webhook={}, hook={"command": [sys.executable, "-c", program]})
    daemon.upload("spring", "casual")
    daemon.upload("summer", "beach")
    assert daemon.drain() == ExitCode.OK
    for job in ("spring", "summer"):
        log = (daemon.outputs / job / "job.log").read_text()
        assert f"hook: delivered {job}" in log and "report.json" in log and "hook finished" in log


def test_prometheus_sees_what_the_daemon_does(daemon: DaemonProcess) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address, path = f"127.0.0.1:{probe.getsockname()[1]}", daemon.root / "fastfit.prom"
    add_settings(daemon, webhook={}, metrics={"textfile": str(path), "listen": address, "every_s": 0.2})
    daemon.upload("spring", "casual", "input")
    daemon.start()
    wait_for(lambda: daemon.is_final("spring"), daemon)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["fastfit_jobs", "failed"] == 1
    assert values["fastfit_pictures_total", "cpu"] == 1
    assert values["fastfit_failures_total", "input"] == 1
    assert values["fastfit_engine_ready", "cpu"] == 1
    assert values["fastfit_stage_seconds_sum", "denoise"] == pytest.approx(0.1)
    wait_for(lambda: 'fastfit_jobs{status="failed"} 1.0' in path.read_text(), daemon)


def test_in_json_every_event_is_one_line_with_the_same_keys(daemon: DaemonProcess) -> None:
    add_settings(daemon, webhook={}, log={"format": "json", "level": "DEBUG"})
    daemon.upload("spring", "casual", "input")
    daemon.upload("bad name\n", "casual")
    assert daemon.drain() == ExitCode.FAILED
    lines = (daemon.root / "logs" / LOG_FILE).read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert {tuple(event) for event in events} == {("time", "level", "job", "look", "message", "exception")}
    assert {event["level"] for event in events} >= {"INFO", "WARNING"}
    assert {event["look"] for event in events if event["job"] == "spring"} >= {None, "anna.casual", "anna.input"}
    nameless = [event["message"] for event in events if event["job"] is None and "spring" in event["message"]]
    assert nameless == [], "whatever is about a job has it as its key"
