"""The hook: a program of the operator's, run when a job is finished.

It gets a clean environment, no open files of ours, and a bounded time. What it prints goes to the job's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from loguru import logger

from fastfit_watch.config.settings import HookSettings
from fastfit_watch.storage.outbox import HOOK, Notification, Outbox

_IDLE_S = 2.0
_KEPT_BYTES = 64 * 1024
_LINE_CHARACTERS = 1000
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
_CLEAN_S = 3600.0


@dataclass(frozen=True)
class Outcome:
    """How a hook ended.

    exit_code: negative for a signal, None where it could not be started. output: the first part of what it printed.
    """

    exit_code: int | None
    output: str
    trouble: str = ""


class HookRunner:
    """Runs the hook for each notification of the outbox, one at a time, in order. Time is an argument."""

    def __init__(self, settings: HookSettings, outbox: Outbox) -> None:
        self._settings, self._outbox = settings, outbox
        self._clean_at_s = 0.0

    def step(self, now_s: float) -> float:
        """Run the hook once if there is a notification; returns the seconds until there may be another.

        A hook that fails is not run again: its log says so. One that the daemon's own end cut short is.
        """
        notification = self._outbox.next_notification(HOOK, now_s, 0.0)
        if notification is None:
            self._clean(now_s)
            return _IDLE_S
        outcome = run_hook(self._settings, notification)
        log = logger.bind(job=notification.job_id)
        for line in outcome.output.splitlines():
            log.info("hook: {}", line[:_LINE_CHARACTERS])
        if outcome.exit_code == 0:
            log.info("hook finished")
        else:
            log.warning("hook failed: {}", outcome.trouble or f"exit code {outcome.exit_code}")
        self._outbox.end(notification, outcome.trouble or f"exit code {outcome.exit_code}", now_s)
        return 0.0

    def _clean(self, now_s: float) -> None:
        if abs(now_s - self._clean_at_s) >= _CLEAN_S:
            self._outbox.forget(HOOK, now_s - _CLEAN_S)
            self._clean_at_s = now_s


def run_hook(settings: HookSettings, notification: Notification) -> Outcome:
    """Run the hook for a notification, in the job's folder, until it ends or its time is over."""
    message = json.loads(notification.body)
    folder = Path(message["folder"])
    try:
        process = subprocess.Popen(
            settings.command,
            cwd=folder if folder.is_dir() else "/",
            env=_environment(message),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        return Outcome(None, "", f"{settings.command[0]} cannot be started: {error.strerror}")
    assert process.stdout is not None  # noqa: S101 - asked for above
    with process.stdout as stream:
        output, ended = _read_output(process, stream, time.monotonic() + settings.timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left running, or itself
        exit_code = process.wait()
    text = output.decode("utf-8", "backslashreplace")
    trouble = "" if ended else f"it took longer than {settings.timeout_s:g} s and was ended"
    return Outcome(exit_code, text, trouble)


def _environment(message: Mapping[str, str]) -> dict[str, str]:
    """Only what is named here: whatever secrets the daemon's own environment holds stay behind."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    facts = {"JOB": "job", "EVENT": "event", "STATUS": "status", "REASON": "reason", "FOLDER": "folder"}
    facts |= {"UPLOAD": "upload", "DELIVERY": "id"}
    values = {f"FASTFIT_{name}": message[key].replace("\0", "") for name, key in facts.items()}
    return environment | values | {"FASTFIT_REPORT": f"{message['folder']}/{message['report']}"}


def _read_output(process: subprocess.Popen[bytes], stream: IO[bytes], deadline_s: float) -> tuple[bytes, bool]:
    """Its output until it ends, of which the first part is kept; and whether it ended in time."""
    kept = b""
    while time.monotonic() < deadline_s:
        if select.select([stream], [], [], 0.1)[0]:
            chunk = os.read(stream.fileno(), _KEPT_BYTES)
            kept += chunk[: _KEPT_BYTES - len(kept)]
            if chunk:
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline_s - time.monotonic()))
        if process.poll() is not None and not select.select([stream], [], [], 0)[0]:
            return kept, True
        if process.poll() is not None:
            tail = os.read(stream.fileno(), _KEPT_BYTES)
            return kept + tail[: _KEPT_BYTES - len(kept)], True
    return kept, False
