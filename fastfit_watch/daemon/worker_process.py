"""Starts, supervises, stops and restarts the worker process of one device.

A crash, a hang or a poisoned CUDA context costs that process, never the daemon. `clock_s` is monotonic seconds.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from enum import StrEnum
from typing import IO

from loguru import logger

from fastfit_watch.config.settings import Config, EngineSettings
from fastfit_watch.domain.worker_protocol import (
    CannotLoad,
    Event,
    Fetching,
    Loading,
    LookDone,
    LookFailed,
    LookOrder,
    LookWithheld,
    Message,
    Ready,
    WorkerExit,
    WorkerExited,
    WorkerMessage,
    read_message,
    write_order,
    write_settings,
)
from fastfit_watch.domain.worker_settings import WorkerSettings
from fastfit_watch.system.backoff import backoff_s

_END_GRACE_S = 5.0
_ASLEEP_S = 10.0
_LINE_LIMIT = 2000
_LAST_WORDS = ("Traceback (most recent call last)", "Fatal Python error", "terminate called", "Exception in thread")
_LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR): ?")


class WorkerState(StrEnum):
    """off: no process. loading: not ready for looks yet. ready: takes looks."""

    OFF = "off"
    LOADING = "loading"
    READY = "ready"


def worker_command(config: Config, device: str) -> list[str]:
    """Return the command line of the worker process for one device."""
    settings = WorkerSettings(config.engine_setup(device), config.marks.finish, config.engine.max_rss_bytes)
    return [sys.executable, "-m", "fastfit_watch.worker", write_settings(settings)]


class WorkerProcess:
    """The worker process of one device: a `WorkerHandle` whose worker is a child process.

    Start it from the main thread only: the process is killed when the thread that started it ends.
    """

    def __init__(
        self, device: str, command: Sequence[str], settings: EngineSettings, mail: queue.SimpleQueue[Event | None]
    ):
        self.device = device
        self.state = WorkerState.OFF
        self.ready: Ready | None = None
        self.trouble = ""
        self.refused = False
        self.load_failures = 0
        self.settings = settings
        self._command, self._mail = list(command), mail
        self._process: subprocess.Popen[str] | None = None
        self._life = 0
        self._in_hand: list[int] = []
        self._stage = ""
        self._failures = 0
        self._not_before_s = float("-inf")
        self._fresh_s = 0.0
        self._checked_s = 0.0

    @property
    def in_hand(self) -> tuple[int, ...]:
        """The tokens of its orders that are not answered, oldest first."""
        return tuple(self._in_hand)

    @property
    def is_ready(self) -> bool:
        """Does it take looks?"""
        return self.state is WorkerState.READY

    @property
    def is_resting(self) -> bool:
        """Is it ready, with nothing in hand?"""
        return self.is_ready and not self._in_hand

    def describe(self) -> str:
        """How it is, for people: `cuda:0 ready (mini)`."""
        if self.ready is not None:
            return f"{self.device} ready ({self.ready.bundle})"
        if self.trouble:
            return f"{self.device} cannot load the engine: {self.trouble}"
        if self.state is WorkerState.LOADING:
            return f"{self.device} loading" + (f" ({self._stage})" if self._stage else "")
        return f"{self.device} not started"

    def adopt(self, settings: EngineSettings) -> None:
        """Use these times and limits from now on, and try at once what was waiting for its next start."""
        self.settings, self._not_before_s = settings, float("-inf")

    def start(self, clock_s: float) -> None:
        """Start the process if there is none and it is not too early after the last one."""
        if self.state is not WorkerState.OFF or clock_s < self._not_before_s:
            return
        self._life += 1
        self.state, self._fresh_s, self._checked_s = WorkerState.LOADING, clock_s, clock_s
        self._stage = ""
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="backslashreplace",
                start_new_session=True,  # a Ctrl-C at the terminal is the daemon's to handle
            )
        except OSError as error:  # the machine is out of memory or processes, or the program may not be run
            self.load_failures += 1
            self.trouble = f"its process cannot be started: {error.strerror}"
            logger.error("{}: {}, next start in {:.0f} s", self.device, self.trouble, self._schedule_restart(clock_s))
            return
        for target, stream in ((self._read_messages, self._process.stdout), (self._read_log, self._process.stderr)):
            threading.Thread(target=target, args=(self._process, self._life, stream), daemon=True).start()
        logger.info("{}: starting the engine, process {}", self.device, self._process.pid)

    def send(self, order: LookOrder, clock_s: float) -> None:
        """Give it one look to make. A process that is just dying is noticed by its `WorkerExited`."""
        if not self._in_hand:
            self._fresh_s = clock_s
        self._in_hand.append(order.token)
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(write_order(order) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            logger.warning("{}: the engine process takes no orders: {}", self.device, error.strerror)

    def knows(self, event: Event) -> bool:
        """Is this event about the present process, not one that was replaced?"""
        return event.device == self.device and event.life == self._life and self.state is not WorkerState.OFF

    def handle_message(self, message: Message, clock_s: float) -> None:
        """Take note of a message: it is a sign of life."""
        self._fresh_s = clock_s
        match message:
            case Ready(bundle=bundle, load_s=load_s):
                self.state, self.ready = WorkerState.READY, message
                self.trouble, self.refused, self.load_failures = "", False, 0
                logger.info("{}: engine ready with {} after {:.1f} s", self.device, bundle, load_s)
            case CannotLoad(message=trouble):
                self.trouble, self.refused = trouble, True
                logger.error("{}: the engine cannot be loaded: {}", self.device, trouble)
            case Loading(stage=stage):
                self._stage = stage
            case Fetching(progress=progress):
                self._stage, self.trouble = progress, ""
            case LookDone(token=token) | LookWithheld(token=token):
                self._failures = 0
                self._answered(token)
            case LookFailed(token=token):
                self._answered(token)

    def _answered(self, token: int) -> None:
        if token in self._in_hand:
            self._in_hand.remove(token)

    def handle_exit(self, exit_code: int, clock_s: float) -> None:
        """Take note that the process has ended. The next start waits twice as long as the last."""
        self._in_hand.clear()
        if self.state is WorkerState.LOADING:
            self.load_failures += 1
            self.trouble = self.trouble or f"the engine process ended while loading ({describe_exit(exit_code)})"
        self.request_stop()
        if exit_code == WorkerExit.OUTGROWN and self.state is WorkerState.READY:
            logger.info("{}: the engine is renewed: it held more memory than engine.max_rss_bytes allows", self.device)
            self.state, self.ready = WorkerState.OFF, None
            return
        pause_s = self._schedule_restart(clock_s)
        logger.warning(
            "{}: the engine ended ({}), next start in {:.0f} s", self.device, describe_exit(exit_code), pause_s
        )

    def _schedule_restart(self, clock_s: float) -> float:
        """No process now; returns in how many seconds the next may start: twice as many as last time."""
        self.state, self.ready = WorkerState.OFF, None
        self._failures += 1
        pause_s = backoff_s(self._failures, self.settings.backoff_s, self.settings.backoff_max_s)
        self._not_before_s = clock_s + pause_s
        return pause_s

    def check(self, clock_s: float) -> None:
        """End a process that loads for too long, or that has looks in hand and shows no progress."""
        if clock_s - self._checked_s > _ASLEEP_S:
            self._fresh_s = clock_s  # this daemon was stopped itself: what was said meanwhile is still unread
        self._checked_s = clock_s
        if self.is_fresh(clock_s):
            return
        if self.state is WorkerState.LOADING:
            self.trouble = f"loading took longer than {self.settings.load_timeout_s:.0f} s"
        logger.error("{}: no progress for {:.0f} s, ending the engine", self.device, clock_s - self._fresh_s)
        self.kill()

    def is_fresh(self, clock_s: float) -> bool:
        """Is the process idle, absent, or heard of recently enough?"""
        if self.state is WorkerState.LOADING:
            return clock_s - self._fresh_s <= self.settings.load_timeout_s
        return not self._in_hand or clock_s - self._fresh_s <= self.settings.stall_s

    def kill(self) -> None:
        """End the process and all it started, at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self, timeout_s: float = _END_GRACE_S) -> None:
        """Ask the process to end and wait for it; after `timeout_s` it is killed."""
        if self._process is None:
            return
        self.request_stop()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self.state, self.ready = WorkerState.OFF, None
        self._in_hand.clear()

    def request_stop(self) -> None:
        """Ask the process to end, by closing its input, without waiting for it."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _read_messages(self, process: subprocess.Popen[str], life: int, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                try:
                    self._mail.put(WorkerMessage(self.device, life, read_message(line)))
                except ValueError:
                    logger.error("{}: the engine process sent no message: {}", self.device, line[:_LINE_LIMIT])
        try:
            exit_code = process.wait(_END_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            exit_code = process.wait()
        self._mail.put(WorkerExited(self.device, life, exit_code))

    def _read_log(self, process: subprocess.Popen[str], life: int, stream: IO[str]) -> None:
        unlabelled = "INFO"
        with stream:
            for line in stream:
                text = line.rstrip()[:_LINE_LIMIT]
                label = _LEVEL.match(text)
                # The last words of a process that crashes bear no label, and go on for many lines.
                unlabelled = "INFO" if label else "ERROR" if text.startswith(_LAST_WORDS) else unlabelled
                if text:
                    level = label.group(1) if label else unlabelled
                    logger.log(level, "{}: {}", self.device, _LEVEL.sub("", text))


def describe_exit(exit_code: int) -> str:
    """`exit code 1`, or `signal SIGKILL`."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"signal {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"signal {-exit_code}"
