"""Wires the two loops: intake in a thread, dispatch in the main thread, and the signals that end them.

SIGTERM or SIGINT: finish the look in hand, keep the rest, exit. A second one: stop now. SIGHUP: read the settings.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from loguru import logger

from fastfit_watch.announce import Announcer
from fastfit_watch.config import Config
from fastfit_watch.devices import find_devices
from fastfit_watch.dispatch import Dispatch
from fastfit_watch.errors import ConfigError, StorageError
from fastfit_watch.exits import ExitCode
from fastfit_watch.inspector import Inspector
from fastfit_watch.intake import NOTE as INTAKE_NOTE
from fastfit_watch.intake import REMOTE_SETTLE_S, Intake
from fastfit_watch.job import Job, Status
from fastfit_watch.ledger import Ledger
from fastfit_watch.logs import set_up_logs
from fastfit_watch.notify import notify, watchdog_interval_s
from fastfit_watch.resident import Event, Resident, ResidentState, worker_command
from fastfit_watch.spool import Spool
from fastfit_watch.watch import Bell, Watcher

NOTE = "daemon"
_BUSY_WAIT_S = 0.25
_IDLE_WAIT_S = 1.0
_HEARTBEAT_S = 15.0
_LOADING_EXTENSION_S = 120
_JOIN_S = 10.0
_LOAD_ATTEMPTS_ONCE = 3
_ACTIVE = (Status.QUEUED, Status.RUNNING)


class Daemon:
    """One daemon on one spool. `run` may be called once, from the main thread."""

    def __init__(
        self,
        config: Config,
        *,
        once: bool = False,
        reread: Callable[[], Config] | None = None,
        command: Callable[[Config, str], list[str]] = worker_command,
    ) -> None:
        """Take the spool and open the ledger.

        Parameters
        ----------
        once : process what is complete, then end.
        reread : reads the settings again, at SIGHUP.
        command : the command line of the engine process for a device.

        Raises
        ------
        ConfigError : another daemon has the spool, or a folder cannot be made. StorageError : the disk is full.
        """
        self._config, self._once = config, once
        self._reread = reread
        _make_folders(config)
        self._spool = Spool(config)
        self._spool.lock()
        set_up_logs(config.log, config.logs, config.outputs)
        self._ledger = Ledger(self._spool.ledger_path)
        self._mail: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        devices = find_devices(config.engine.devices)
        self._residents = [Resident(device, command(config, device), config.engine, self._mail) for device in devices]
        self._announcer = Announcer(config, self._ledger, len(devices))
        self._dispatch = Dispatch(config, self._ledger, self._spool, self._residents, self._announcer)
        self._uptake = _Uptake(config, self._ledger, self._spool, self._note_job)
        self._began_s = time.time()
        self._stops = 0
        self._stopping = False
        self._reload = False
        self._told_ready = False
        self._heartbeat: tuple[str, float] = ("", float("-inf"))
        self._watchdog_s = watchdog_interval_s()
        self._watchdog_at_s = 0.0

    def run(self) -> ExitCode:
        """Work until a signal comes or, with `once`, until everything complete is processed."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        logger.info("watching {} with bundle {}", self._config.inputs, self._config.bundle)
        self._announcer.start()
        self._uptake.start()
        try:
            return self._loop()
        finally:
            self._close()

    def _loop(self) -> ExitCode:
        while True:
            events = self._wait()
            now_s, clock_s = time.time(), time.monotonic()
            if self._reload:
                self._apply_settings()
            if self._stops and not self._stopping:
                self._begin_stop()
            if self._stops > 1:
                logger.warning("second signal: stopping at once; what was in hand is made again at the next start")
                self._dispatch.stop_now(now_s)
                return ExitCode.OK
            self._dispatch.step(events, now_s, clock_s, may_start=not self._once or self._has_work())
            if self._stopping and self._dispatch.is_idle:
                return ExitCode.OK
            self._tell_people(now_s, clock_s)
            if self._once and (code := self._drained()) is not None:
                return code

    def _wait(self) -> list[Event]:
        """Everything the engines said meanwhile; returns early when something happens."""
        calm = all(resident.state is ResidentState.OFF or resident.is_resting for resident in self._residents)
        events: list[Event | None] = []
        try:
            events.append(self._mail.get(timeout=_IDLE_WAIT_S if calm else _BUSY_WAIT_S))
            while True:
                events.append(self._mail.get_nowait())
        except queue.Empty:
            return [event for event in events if event is not None]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self._stops += 1
        self._mail.put(None)

    def _note_job(self, job: Job) -> None:
        """Intake changed a job: tell people, and let dispatch look at the queue."""
        self._announcer.note_job(job.id)
        self._mail.put(None)

    def _begin_stop(self) -> None:
        logger.info("stopping: a look in hand is finished first, the rest is kept")
        self._stopping = True
        notify("STOPPING=1\nSTATUS=finishing the look in hand")
        self._uptake.ask_to_stop()
        self._dispatch.stop_gently()

    def _close(self) -> None:
        self._uptake.stop()
        for resident in self._residents:
            resident.end()
        self._announcer.finish()
        try:
            self._ledger.put_note(
                NOTE, json.dumps({"state": "stopped", "pid": os.getpid(), "heartbeat_s": time.time()})
            )
        except StorageError as error:
            logger.warning("{}", error)
        self._ledger.close()
        self._spool.unlock()
        logger.info("stopped")

    # What others may know

    def _tell_people(self, now_s: float, clock_s: float) -> None:
        """systemd and the ledger learn how we are: at every change, and regularly."""
        text = self._describe_engines()
        self._tell_systemd(text, clock_s)
        told, told_s = self._heartbeat
        if text == told and clock_s - told_s < _HEARTBEAT_S:
            return
        self._heartbeat = (text, clock_s)
        note = {"state": "running", "pid": os.getpid(), "heartbeat_s": now_s, "engine": text}
        try:
            self._ledger.put_note(NOTE, json.dumps({**note, "watch": self._uptake.mode}))
        except StorageError as error:
            logger.warning("{}", error)

    def _tell_systemd(self, text: str, clock_s: float) -> None:
        if text != self._heartbeat[0]:
            notify(f"STATUS={text}")
        if not self._told_ready:
            # A daemon whose engine cannot be loaded still takes uploads and says why: it is ready for that.
            loading = any(not resident.is_ready and not resident.load_failures for resident in self._residents)
            self._told_ready = not loading and notify("READY=1")
            if loading and clock_s >= self._watchdog_at_s:
                notify(f"EXTEND_TIMEOUT_USEC={_LOADING_EXTENSION_S * 1_000_000}")
        healthy = self._uptake.is_alive and all(resident.is_fresh(clock_s) for resident in self._residents)
        if clock_s >= self._watchdog_at_s and healthy:
            notify("WATCHDOG=1")
            self._watchdog_at_s = clock_s + (self._watchdog_s or 3 * _HEARTBEAT_S) / 3

    def _describe_engines(self) -> str:
        engines = "; ".join(resident.describe() for resident in self._residents)
        return f"{engines}; queue standing still: {self._dispatch.held}" if self._dispatch.held else engines

    # Once

    def _has_work(self) -> bool:
        return bool(self._ledger.jobs(_ACTIVE, limit=1))

    def _drained(self) -> ExitCode | None:
        """The exit code once nothing more can be done; None until then."""
        if self._has_work():
            if all(resident.load_failures >= _LOAD_ATTEMPTS_ONCE or resident.refused for resident in self._residents):
                logger.error("giving up: {}", self._describe_engines())
                return ExitCode.ENGINE
            if (reason := self._ledger.paused()) is not None and self._dispatch.is_idle:
                logger.error("the queue is paused ({}); 'fastfit-watch resume' lets it go on", reason)
                return ExitCode.INCOMPLETE
            return None
        if not self._dispatch.is_idle or not self._uptake.has_judged_all():
            return None
        return self._sum_up()

    def _sum_up(self) -> ExitCode:
        """Say what is left, and return the gravest of it."""
        codes = {ExitCode.OK}
        for job in self._ledger.jobs():
            left = job.status.is_open or (job.status is Status.FAILED and job.changed_s >= self._began_s)
            if left:
                logger.warning("{}: {}: {}", job.id, job.status.value, job.reason)
                failed, invalid = job.status is Status.FAILED, job.status is Status.INVALID
                codes.add(ExitCode.FAILED if failed else ExitCode.INVALID if invalid else ExitCode.INCOMPLETE)
        gravest = (ExitCode.FAILED, ExitCode.INVALID, ExitCode.INCOMPLETE, ExitCode.OK)
        return next(code for code in gravest if code in codes)

    # Settings

    def _apply_settings(self) -> None:
        """Take over what may change while running; name the rest."""
        self._reload = False
        if self._reread is None:
            return
        try:
            wanted = self._reread()
        except ConfigError as error:
            logger.error("the settings are kept as they were: {}", error)
            return
        config = live_settings(self._config, wanted)
        for key in fixed_changes(self._config, wanted):
            logger.warning("'{}' changed: it takes effect at the next start", key)
        self._config = self._dispatch.config = config
        set_up_logs(config.log, config.logs, config.outputs)
        for resident in self._residents:
            resident.adopt(config.engine)
        self._uptake.adopt(config)
        logger.info("settings read again")


class _Uptake:
    """Intake in its thread. It is made anew when settings change: it keeps nothing that it could not find again."""

    def __init__(self, config: Config, ledger: Ledger, spool: Spool, on_change: Callable[[Job], None]) -> None:
        self._config, self._ledger, self._spool, self._on_change = config, ledger, spool, on_change
        self._bell = Bell()
        self._watcher = Watcher(config.inputs, self._bell, config.watch.events)
        self._adopted: Config | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True)
        self._in_step = False
        self._last_step_s: float | None = None

    @property
    def mode(self) -> str:
        """How uploads are found: "events", or "polling: " and why."""
        return self._watcher.mode

    @property
    def is_alive(self) -> bool:
        """Is the thread at work, or told to stop?"""
        return self._thread.is_alive() or self._stop.is_set()

    def start(self) -> None:
        """Begin to scan."""
        self._thread.start()

    def adopt(self, config: Config) -> None:
        """Use these settings from the next scan on."""
        self._adopted = config
        self._bell.ring()

    def ask_to_stop(self) -> None:
        """Take no more uploads."""
        self._stop.set()
        self._bell.ring()

    def stop(self) -> None:
        """Stop, and wait for it a while: an interrupted examination loses nothing."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def has_judged_all(self) -> bool:
        """Did a scan look at every upload that stands in `inputs/` after it had time to settle?"""
        if self._in_step or self._last_step_s is None or self._ledger.note(INTAKE_NOTE):
            return False
        settle_s = max(self._config.watch.settle_s, REMOTE_SETTLE_S if self._watcher.is_remote else 0.0)
        waiting = [job for job in self._ledger.holders() if job.status is Status.WAITING]
        return all(job.changed_s + settle_s < self._last_step_s for job in waiting)

    def _work(self) -> None:
        self._watcher.start()
        inspector, intake = self._make()
        try:
            while not self._stop.is_set():
                if self._adopted is not None:
                    self._config, self._adopted = self._adopted, None
                    inspector.close()
                    inspector, intake = self._make()
                self._bell.wait(self._step(intake))
        finally:
            inspector.close()
            self._watcher.stop()

    def _step(self, intake: Intake) -> float:
        began_s = time.time()
        self._in_step = True
        try:
            wait_s = intake.step(began_s, time.monotonic())
        except Exception:  # noqa: BLE001 - one scan that fails must not leave all later uploads unseen
            logger.exception("a scan of {} failed", self._config.inputs)
            return self._config.watch.scan_s
        finally:
            self._in_step = False
        self._last_step_s = began_s
        return wait_s

    def _make(self) -> tuple[Inspector, Intake]:
        config = self._config
        inspector = Inspector(config.limits)
        parts = (config, self._ledger, self._spool, inspector, self._watcher, self._bell)
        return inspector, Intake(*parts, on_change=self._on_change)


def live_settings(present: Config, wanted: Config) -> Config:
    """`wanted` where it may change while the daemon runs, `present` elsewhere."""
    fixed = {key: getattr(present.engine, key) for key in _FIXED_ENGINE}
    engine = wanted.engine.model_copy(update=fixed)
    watch = wanted.watch.model_copy(update={"events": present.watch.events})
    update = {"engine": engine, "watch": watch, "limits": wanted.limits, "log": wanted.log}
    return present.model_copy(update=update)


def fixed_changes(present: Config, wanted: Config) -> list[str]:
    """The settings that differ and need a restart."""
    changed = [key for key in _FIXED if getattr(present, key) != getattr(wanted, key)]
    changed += [f"engine.{key}" for key in _FIXED_ENGINE if getattr(present.engine, key) != getattr(wanted.engine, key)]
    return changed + (["watch.events"] if present.watch.events != wanted.watch.events else [])


_FIXED = ("inputs", "outputs", "logs", "models", "bundle")
_FIXED_ENGINE = ("devices", "dtype", "threads")


def _make_folders(config: Config) -> None:
    for folder in (config.inputs, config.outputs, config.logs):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder {folder} cannot be made: {error.strerror}.") from error
