"""The webhook: notifications sent to another machine by POST, signed, and sent again until they are received.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com): `webhook-id`,
`webhook-timestamp` and `webhook-signature`, which is HMAC-SHA256 (RFC 2104) over `<id>.<timestamp>.<body>` in base64.
The id stays the same when a notification is sent again, so that its receiver knows it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import http.client
import queue
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from fastfit_watch.config.settings import WebhookSettings
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.storage.outbox import WEBHOOK, Notification, Outbox
from fastfit_watch.system.backoff import backoff_s

_SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, not one
_LEAST_SECRET_BYTES = 24
_IDLE_S = 2.0
_CLEAN_S = 3600.0
_ANSWER_CHARACTERS = 200
# The receiver is away or overloaded: nothing can be delivered. Any other answer is about one notification alone.
_AWAY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """The receiver's answer to a notification. code: of HTTP, 0 where there was no answer."""

    code: int
    words: str

    @property
    def is_good(self) -> bool:
        """Whether the receiver has the notification."""
        return 200 <= self.code < 300

    @property
    def is_away(self) -> bool:
        """Whether any other notification would get the same answer."""
        return self.code == 0 or self.code in _AWAY


class WebhookDeliverer:
    """Delivers the outbox one by one, and what concerns one job in order. Time is an argument."""

    def __init__(
        self,
        settings: WebhookSettings,
        outbox: Outbox,
        send: Callable[[WebhookSettings, Notification, float], Answer] | None = None,
    ) -> None:
        self._settings, self._outbox = settings, outbox
        self._send = send or post
        self._failures = 0
        self._away_until_s = 0.0
        self._clean_at_s = 0.0
        self._trouble = ""

    def step(self, now_s: float) -> float:
        """Deliver one notification if one is due; returns the seconds until there may be another."""
        wait_s = self._away_until_s - now_s
        if 0 < wait_s <= self._settings.backoff_max_s:
            return wait_s
        notification = self._outbox.next_notification(WEBHOOK, now_s, self._settings.backoff_max_s)
        if notification is None:
            self._clean(now_s)
            return _IDLE_S
        self._record(notification, self._send(self._settings, notification, now_s), now_s)
        return 0.0

    def _record(self, notification: Notification, answer: Answer, now_s: float) -> None:
        log = logger.bind(job=notification.job_id)
        if answer.is_good:
            self._outbox.end(notification, f"delivered: {answer.words}", now_s)
            if self._failures:
                logger.info("the webhook's receiver answers again")
            self._failures, self._away_until_s, self._trouble = 0, 0.0, ""
            log.info("webhook {} delivered at attempt {}", notification.event, notification.attempts + 1)
            return
        pause_s = self._pause_s(notification.attempts + 1)
        if now_s - notification.since_s >= self._settings.give_up_s:
            self._outbox.end(notification, f"given up: {answer.words}", now_s)
            log.error("webhook {} given up: {}. 'webhook replay' sends it again", notification.event, answer.words)
            return
        if answer.is_away:
            # The notification itself may go as soon as the receiver is there again.
            self._failures += 1
            pause_s = self._pause_s(self._failures)
            self._away_until_s = now_s + pause_s
            self._outbox.put_off(notification, answer.words, 0.0)
        else:
            self._outbox.put_off(notification, answer.words, now_s + pause_s)
        if answer.words != self._trouble:
            log.warning("webhook {} not delivered: {}; again in {:.0f} s", notification.event, answer.words, pause_s)
        self._trouble = answer.words

    def _pause_s(self, failures: int) -> float:
        return backoff_s(failures, self._settings.backoff_s, self._settings.backoff_max_s)

    def _clean(self, now_s: float) -> None:
        if abs(now_s - self._clean_at_s) >= _CLEAN_S:
            self._outbox.forget(WEBHOOK, now_s - self._settings.keep_s)
            self._clean_at_s = now_s


def post(settings: WebhookSettings, notification: Notification, now_s: float) -> Answer:
    """Send one notification, for at most the settings' `timeout_s`, however slowly its receiver answers.

    Redirects are not followed: the notification is for this receiver only.
    """
    try:
        secret = read_secret(settings)
    except ConfigError as error:
        return Answer(0, str(error))
    body = notification.body.encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "fastfit-watch",
        "webhook-id": notification.id,
        "webhook-timestamp": str(int(now_s)),
        "webhook-signature": sign(secret, notification.id, int(now_s), body),
    }
    request = urllib.request.Request(settings.url, body, headers, method="POST")  # noqa: S310 - http(s) by settings
    connections, answers = _Connections(), queue.SimpleQueue[Answer]()
    # A socket's timeout bounds each read, not their sum; name look-ups have none. So the whole is waited for here.
    work = threading.Thread(target=lambda: answers.put(_send(request, connections, settings.timeout_s)), daemon=True)
    work.start()
    try:
        return answers.get(timeout=settings.timeout_s)
    except queue.Empty:
        connections.abort()
        return Answer(0, f"no answer within {settings.timeout_s:g} s")


def sign(secret: bytes, number: str, unix_s: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature` for the notification with the id `number`."""
    digest = hmac.new(secret, f"{number}.{unix_s}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def read_secret(settings: WebhookSettings) -> bytes:
    """Return the secret's bytes. Raises ConfigError if its file is missing or holds no `whsec_...`."""
    try:
        text = Path(settings.secret_file).read_text(encoding="ascii").strip()
        secret = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except OSError as error:
        raise ConfigError(f"webhook.secret_file {settings.secret_file} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, binascii.Error):
        text, secret = "", b""
    if not text.startswith(_SECRET_PREFIX) or len(secret) < _LEAST_SECRET_BYTES:
        raise ConfigError(
            f"webhook.secret_file {settings.secret_file} holds no secret of 24 bytes or more as whsec_<base64>.",
            hint='Make one: echo "whsec_$(openssl rand -base64 32)"',
        )
    return secret


def _send(request: urllib.request.Request, connections: _Connections, timeout_s: float) -> Answer:
    opener = urllib.request.build_opener(_NoRedirect, connections)
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return Answer(answer.status, f"HTTP {answer.status}")
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, f"HTTP {error.code} {error.reason}"[:_ANSWER_CHARACTERS])
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(0, f"no answer: {error}"[:_ANSWER_CHARACTERS])


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections as urllib does, and can break them off from another thread."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: list[http.client.HTTPConnection] = []
        self._is_over = False

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an http address."""
        return self.do_open(self._note(http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an https address."""
        return self.do_open(self._note(http.client.HTTPSConnection), request)

    def abort(self) -> None:
        """Break off every connection; one that is still being opened sends nothing."""
        self._is_over = True
        for connection in self._opened:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _note(self, kind: type[http.client.HTTPConnection]) -> Any:
        connections = self

        class Noted(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                super().connect()
                if connections._is_over:
                    raise TimeoutError("its time is over")

        def make(host: str, **options: Any) -> http.client.HTTPConnection:
            self._opened.append(Noted(host, **options))
            return self._opened[-1]

        return make


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        """Follow none: the answer then counts as an error."""
