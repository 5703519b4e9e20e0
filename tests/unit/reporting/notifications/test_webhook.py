"""The webhook: against a real receiver on the loopback address, and through an outage with a clock of our own."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from fastfit_watch.cli.webhook_log import list_messages, replay
from fastfit_watch.config.settings import Config, WebhookSettings
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import ClaimIntent, LookResult
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.reporting.notifications.payload import write_notification, write_notifications
from fastfit_watch.reporting.notifications.webhook import Answer, WebhookDeliverer, post, read_secret, sign
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.outbox import WEBHOOK, Notification, Outbox
from fastfit_watch.storage.spool import SpoolPaths

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="  # noqa: S105 - of these tests alone
NOW_S = 1_750_000_000.0


class Receiver:
    """Keeps what it is sent, and answers with the codes it is given, then with 200."""

    def __init__(self) -> None:
        self.heard: list[tuple[Message, bytes]] = []
        self.codes: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                receiver.heard.append((self.headers, body))
                self.send_response(receiver.codes.pop(0) if receiver.codes else 200)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def settings(receiver: Receiver, tmp_path: Path) -> WebhookSettings:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return WebhookSettings(url=receiver.url, secret_file=str(tmp_path / "secret"))


@pytest.fixture
def config(settings: WebhookSettings, tmp_path: Path) -> Config:
    config = Config(inputs=tmp_path / "inputs", outputs=tmp_path / "outputs", webhook=settings)
    SpoolPaths(config.inputs).root.mkdir(parents=True)
    return config


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    ledger = Ledger(SpoolPaths(config.inputs).ledger)
    yield ledger
    ledger.close()


@pytest.fixture
def outbox(ledger: Ledger) -> Outbox:
    return ledger.outbox


def notification(job: str, number: int = 0) -> Notification:
    return Notification(WEBHOOK, f"{job}-{number}", job, "job.done", json.dumps({"job": job, "number": number}), NOW_S)


def finish_job(ledger: Ledger, name: str, *, fail: bool = False) -> None:
    ledger.find_or_create_unclaimed(name, NOW_S)
    look = Look("anna.jpg", "casual", {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=7))
    ledger.begin_claim(ClaimIntent(name, "outfit.yaml", [look], {}, name), NOW_S)
    ledger.finish_claim(name, NOW_S)
    ledger.start_attempt(name, look.key, NOW_S)
    if fail:
        ledger.fail_look(name, look.key, "nobody is in the picture", NOW_S)
    else:
        ledger.finish_look(name, look.key, LookResult("anna.casual.png", "ab" * 32, 4, 3, {}, None, "cpu"), NOW_S)
    ledger.settle_job(name, NOW_S)


# What is sent


def test_a_notification_is_written_with_the_report_and_says_what_became_of_each_picture(
    config: Config, ledger: Ledger
) -> None:
    finish_job(ledger, "spring")
    finish_job(ledger, "summer", fail=True)
    for job in ledger.unreported():
        ledger.confirm_report(job, write_notifications(config, job, ledger.looks(job.id), NOW_S))
    spring, summer = (json.loads(posted.notification.body) for posted in ledger.outbox.posted(WEBHOOK, 9))
    assert (spring["event"], spring["job"], spring["status"]) == ("job.done", "spring", "done")
    assert spring["folder"] == str(config.outputs / "spring")
    assert spring["pictures"] == [
        {
            "look": "anna.casual",
            "status": "done",
            "reason": "",
            "seed": 7,
            "file": "anna.casual.png",
            "sha256": "ab" * 32,
        }
    ]
    assert (summer["event"], summer["pictures"][0]["reason"]) == ("job.failed", "nobody is in the picture")


def test_only_wanted_events_become_notifications(config: Config, ledger: Ledger) -> None:
    finish_job(ledger, "spring")
    (job,) = ledger.unreported()
    assert write_notifications(Config(), job, (), NOW_S) == []
    unwanted = config.model_copy(update={"webhook": config.webhook.model_copy(update={"events": ("failed",)})})
    assert write_notifications(unwanted, job, (), NOW_S) == []


def test_a_notification_is_verified_by_the_published_library(receiver: Receiver, settings: WebhookSettings) -> None:
    """standardwebhooks is the oracle: header names, signature, and how long it is valid."""
    assert post(settings, notification("spring"), time.time()) == Answer(200, "HTTP 200")
    message, body = receiver.heard[0]
    headers = {key.lower(): value for key, value in message.items()}
    assert Webhook(SECRET).verify(body, headers) == {"job": "spring", "number": 0}
    assert headers["webhook-id"] == "spring-0"
    another = "whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhpcyBsZW5ndGg="
    for secret, sent, changed in (
        (SECRET, body + b" ", {}),
        (another, body, {}),
        (SECRET, body, {"webhook-id": "spring-1"}),
        (SECRET, body, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(sent, headers | changed)
    assert post(settings, notification("spring"), time.time() - 301).is_good
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify(body, dict(receiver.heard[1][0].items()))


def test_the_signature_is_the_one_of_the_published_library(settings: WebhookSettings) -> None:
    moment = datetime.fromtimestamp(NOW_S, UTC)
    assert sign(read_secret(settings), "id-1", int(NOW_S), b"{}") == Webhook(SECRET).sign("id-1", moment, "{}")


def test_a_receiver_that_drips_bytes_gets_no_more_than_the_timeout(settings: WebhookSettings) -> None:
    """Each byte comes within a socket's timeout; the answer as a whole does not."""
    server, broken_off = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(0.05)
            try:
                for byte in itertools.cycle(b"HTTP/1.1 200 OK\r\nX-More: more\r\n"):
                    connection.send(bytes([byte]))
                    with contextlib.suppress(TimeoutError):
                        while connection.recv(4096):
                            pass
                        return
            except OSError:
                pass
            finally:
                broken_off.set()

    thread = threading.Thread(target=drip)
    thread.start()
    url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    slow = settings.model_copy(update={"url": url, "timeout_s": 1.0})
    assert post(slow, notification("spring"), NOW_S) == Answer(0, "no answer within 1 s")
    assert broken_off.wait(30), "the connection is not left behind"
    thread.join()
    server.close()


@pytest.mark.parametrize("code", [301, 302, 307])
def test_redirects_are_not_followed(code: int, receiver: Receiver, settings: WebhookSettings) -> None:
    receiver.codes = [code]
    assert post(settings, notification("spring"), NOW_S).code == code
    assert len(receiver.heard) == 1


def test_a_secret_must_be_there_and_long_enough(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(WebhookSettings(url="http://x", secret_file=str(tmp_path / "none")))
    for text in ("secret", "whsec_c2hvcnQ=", "whsec_!!!", SECRET.removeprefix("whsec_"), "whsec_é"):
        (tmp_path / "wrong").write_text(text)
        with pytest.raises(ConfigError, match="24 bytes or more"):
            read_secret(WebhookSettings(url="http://x", secret_file=str(tmp_path / "wrong")))
    with pytest.raises(ValueError, match="secret_file"):
        WebhookSettings(url="http://x")


# When, and in which order


Behaviour = Callable[[float, Any], Answer]


class World:
    """A receiver that is away for a while, and a clock that jumps from one step of the deliverer to the next."""

    def __init__(self, settings: WebhookSettings, outbox: Outbox) -> None:
        self.now_s = NOW_S
        self.away: Behaviour = lambda now_s, body: Answer(200, "HTTP 200")
        self.tried: list[float] = []
        self.taken: list[tuple[float, str, int]] = []
        self.deliverer = WebhookDeliverer(settings, outbox, self.send)

    def send(self, settings: WebhookSettings, sent: Notification, now_s: float) -> Answer:
        assert now_s == self.now_s
        body = json.loads(sent.body)
        answer = self.away(now_s, body)
        self.tried.append(now_s)
        if answer.is_good:
            self.taken.append((now_s, body["job"], body["number"]))
        return answer

    def run_until(self, moment_s: float) -> None:
        while self.now_s < moment_s:
            self.now_s += self.deliverer.step(self.now_s)


def away_until(moment_s: float, code: int = 0) -> Behaviour:
    return lambda now_s, body: Answer(code, "away") if now_s < moment_s else Answer(200, "HTTP 200")


@pytest.mark.parametrize("code", [0, 503])
def test_an_outage_of_an_hour_loses_nothing_and_keeps_the_order(
    code: int, settings: WebhookSettings, outbox: Outbox
) -> None:
    world = World(settings, outbox)
    world.away = away_until(NOW_S + 3600, code)
    for number in range(50):
        outbox.post([notification(f"job{number % 5}", number)])
    world.run_until(NOW_S + 3600 + 301)
    assert [number for _, _, number in world.taken] == list(range(50))
    assert len(world.tried) - 50 < 25, "the pauses grow: it is not tried all the time"
    pauses = [later - earlier for earlier, later in itertools.pairwise(world.tried)]
    assert pauses[:4] == [5, 10, 20, 40] and max(pauses) == 300
    assert outbox.pending() == {}


def test_a_notification_that_is_refused_holds_up_its_own_job_only(settings: WebhookSettings, outbox: Outbox) -> None:
    world = World(settings, outbox)
    world.away = lambda now_s, body: (
        Answer(500, "HTTP 500") if body["number"] == 0 and now_s < NOW_S + 60 else Answer(200, "HTTP 200")
    )
    outbox.post([notification("a", 0), notification("b", 1), notification("a", 2), notification("b", 3)])
    world.run_until(NOW_S + 1)
    assert [number for _, _, number in world.taken] == [1, 3]
    world.run_until(NOW_S + 200)
    assert [number for _, _, number in world.taken] == [1, 3, 0, 2]


def test_after_three_days_a_notification_is_given_up_and_replay_still_sends_it(
    config: Config, ledger: Ledger, settings: WebhookSettings, outbox: Outbox
) -> None:
    world = World(settings, outbox)
    world.away = away_until(NOW_S + 4 * 86400)
    outbox.post([notification("spring", 0)])
    world.run_until(NOW_S + 4 * 86400)
    assert outbox.pending() == {} and world.taken == []
    assert "given up: away" in list_messages(ledger.path)[0]
    finish_job(ledger, "spring")
    assert replay(config, "spring", world.now_s) == 1
    world.run_until(world.now_s + 310)
    assert len(world.taken) == 1
    assert "delivered: HTTP 200" in list_messages(ledger.path)[0]


def test_replay_keeps_the_order_and_writes_what_was_never_written(
    config: Config, ledger: Ledger, settings: WebhookSettings, outbox: Outbox
) -> None:
    world = World(settings, outbox)
    finish_job(ledger, "spring")
    outbox.post([notification("spring", 0), notification("spring", 1)])
    world.run_until(NOW_S + 1)
    assert replay(config, "spring", world.now_s) == 2
    world.run_until(world.now_s + 3)
    assert [number for _, _, number in world.taken] == [0, 1, 0, 1]
    finish_job(ledger, "summer")
    assert replay(config, "summer", world.now_s) == 1
    assert outbox.pending()[WEBHOOK][0] == 1
    with pytest.raises(ConfigError, match="no job"):
        replay(config, "nowhere", NOW_S)
    with pytest.raises(ConfigError, match="No webhook"):
        replay(config.model_copy(update={"webhook": WebhookSettings()}), "spring", NOW_S)
    ledger.find_or_create_unclaimed("half", NOW_S)
    with pytest.raises(ConfigError, match="nothing to tell yet"):
        replay(config, "half", NOW_S)


def test_a_clock_that_is_set_back_delays_nothing(settings: WebhookSettings, outbox: Outbox) -> None:
    world = World(settings, outbox)
    world.away = lambda now_s, body: Answer(500, "HTTP 500")
    outbox.post([notification("spring", 0)])
    world.run_until(NOW_S + 1)
    world.away = lambda now_s, body: Answer(200, "HTTP 200")
    world.now_s = NOW_S - 86400
    world.run_until(world.now_s + 1)
    assert len(world.taken) == 1


def test_delivered_notifications_are_removed_after_a_while(settings: WebhookSettings, outbox: Outbox) -> None:
    world = World(settings, outbox)
    outbox.post([notification("spring", 0)])
    world.run_until(NOW_S + 10)
    world.now_s = NOW_S + settings.keep_s + 7200
    world.run_until(world.now_s + 1)
    assert outbox.posted(WEBHOOK, 9) == []


def test_a_notification_in_the_outbox_survives_its_process(ledger: Ledger) -> None:
    ledger.outbox.post([notification("spring", 0)])
    ledger.close()
    with closing(Ledger(ledger.path)) as again:
        found = again.outbox.next_notification(WEBHOOK, NOW_S, 300.0)
    assert found is not None and replace(found, serial=0) == notification("spring", 0)


def test_a_notification_about_a_job_is_the_same_every_time_it_is_sent(config: Config, ledger: Ledger) -> None:
    finish_job(ledger, "spring")
    (job,) = ledger.unreported()
    written = write_notification(WEBHOOK, config, job, ledger.looks("spring"), NOW_S)
    ledger.confirm_report(job, [written])
    outbox = ledger.outbox
    first = outbox.next_notification(WEBHOOK, NOW_S, 300.0)
    assert first is not None
    outbox.put_off(first, "HTTP 500", 0.0)
    second = outbox.next_notification(WEBHOOK, NOW_S, 300.0)
    assert second is not None
    assert (second.id, second.body, second.attempts) == (first.id, first.body, 1)
