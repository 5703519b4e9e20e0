"""The webhook: letters sent to another machine by POST, signed, and sent again until it has them.

The signature is HMAC-SHA256 (RFC 2104) over `<timestamp>.<body>`, in the header `FastFit-Signature: t=...,v1=...`. A
receiver checks it with its own clock (`verify`), and knows a letter that comes twice by its `FastFit-Delivery`.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
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

SIGNATURE_HEADER = "FastFit-Signature"
_LEAST_SECRET_BYTES = 16
_IDLE_S = 2.0
_CLEAN_S = 3600.0
_SAID_CHARACTERS = 200
# The receiver is away or overloaded: no letter can be delivered. Any other answer is about one letter alone.
_AWAY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """What came back for a letter. code: of HTTP, 0 where there was no answer."""

    code: int
    words: str

    @property
    def is_good(self) -> bool:
        """Has the receiver taken it?"""
        return 200 <= self.code < 300

    @property
    def is_away(self) -> bool:
        """Would any other letter fare the same?"""
        return self.code == 0 or self.code in _AWAY


class WebhookDeliverer:
    """Delivers the outbox, a letter at a time, each job's letters in order. Time is an argument."""

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
        """Deliver one letter if one is due; returns the seconds until there may be another."""
        wait_s = self._away_until_s - now_s
        if 0 < wait_s <= self._settings.backoff_max_s:
            return wait_s
        notification = self._outbox.next_notification(WEBHOOK, now_s, self._settings.backoff_max_s)
        if notification is None:
            self._clean(now_s)
            return _IDLE_S
        self._settle(notification, self._send(self._settings, notification, now_s), now_s)
        return 0.0

    def _settle(self, notification: Notification, answer: Answer, now_s: float) -> None:
        log = logger.bind(job=notification.job_id)
        if answer.is_good:
            self._outbox.end(notification, f"delivered: {answer.words}", now_s)
            if self._failures:
                logger.info("the webhook's receiver is there again")
            self._failures, self._away_until_s, self._trouble = 0, 0.0, ""
            log.info("webhook {} delivered at attempt {}", notification.event, notification.attempts + 1)
            return
        pause_s = self._pause_s(notification.attempts)
        if now_s - notification.since_s >= self._settings.give_up_s:
            self._outbox.end(notification, f"given up: {answer.words}", now_s)
            log.error("webhook {} given up: {}. 'webhook replay' sends it again", notification.event, answer.words)
            return
        if answer.is_away:
            # The letter itself may go as soon as the receiver is there again.
            pause_s, self._failures = self._pause_s(self._failures), self._failures + 1
            self._away_until_s = now_s + pause_s
            self._outbox.put_off(notification, answer.words, 0.0)
        else:
            self._outbox.put_off(notification, answer.words, now_s + pause_s)
        if answer.words != self._trouble:
            log.warning("webhook {} not delivered: {}; again in {:.0f} s", notification.event, answer.words, pause_s)
        self._trouble = answer.words

    def _pause_s(self, failures: int) -> float:
        settings = self._settings
        return min(settings.backoff_s * 2.0 ** min(failures, 30), settings.backoff_max_s)

    def _clean(self, now_s: float) -> None:
        if abs(now_s - self._clean_at_s) >= _CLEAN_S:
            self._outbox.forget(WEBHOOK, now_s - self._settings.keep_s)
            self._clean_at_s = now_s


def post(settings: WebhookSettings, notification: Notification, now_s: float) -> Answer:
    """Send one letter. Redirects are not followed: the letter is for this receiver only."""
    body = notification.body.encode()
    try:
        secret = read_secret(settings)
    except ConfigError as error:
        return Answer(0, str(error))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "fastfit-watch",
        "FastFit-Event": notification.event,
        "FastFit-Delivery": notification.id,
        "FastFit-Attempt": str(notification.attempts + 1),
        SIGNATURE_HEADER: sign(secret, body, now_s),
    }
    request = urllib.request.Request(settings.url, body, headers, method="POST")  # noqa: S310 - http(s) by settings
    try:
        with _OPENER.open(request, timeout=settings.timeout_s) as answer:
            return Answer(answer.status, f"HTTP {answer.status}")
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, f"HTTP {error.code} {error.reason}"[:_SAID_CHARACTERS])
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(0, f"no answer: {error}"[:_SAID_CHARACTERS])


def sign(secret: bytes, body: bytes, now_s: float) -> str:
    """The value of the signature's header."""
    stamp = str(int(now_s))
    return f"t={stamp},v1={_digest(secret, stamp, body)}"


def verify(secret: bytes, body: bytes, signature: str, now_s: float, tolerance_s: float = 300.0) -> bool:
    """Is this letter from someone with the secret, and was it sent just now? What a receiver does."""
    parts = dict(part.partition("=")[::2] for part in signature.split(","))
    stamp = parts.get("t", "")
    if not stamp.isdecimal() or abs(now_s - int(stamp)) > tolerance_s:
        return False
    return hmac.compare_digest(_digest(secret, stamp, body), parts.get("v1", ""))


def read_secret(settings: WebhookSettings) -> bytes:
    """The secret. Raises ConfigError if its file is missing or too short to be one."""
    try:
        secret = Path(settings.secret_file).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"webhook.secret_file {settings.secret_file} cannot be read: {error.strerror}.") from error
    if len(secret) < _LEAST_SECRET_BYTES:
        hint = "Make one: openssl rand -hex 32"
        raise ConfigError(f"webhook.secret_file {settings.secret_file} holds fewer than 16 bytes.", hint=hint)
    return secret


def _digest(secret: bytes, stamp: str, body: bytes) -> str:
    return hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        """Follow none: the answer then counts as an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)
