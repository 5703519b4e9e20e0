"""Wires the two loops: intake in a thread, dispatch in the main thread, and the signals that end them.

SIGTERM or SIGINT: finish the look in hand, keep the rest, exit. A second one: stop now. SIGHUP: read the settings.
A thread that dies of an error takes the daemon with it: whoever started it starts it again, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from loguru import logger

from fastfit_watch.config.reload import fixed_changes, live_settings
from fastfit_watch.config.settings import Config
from fastfit_watch.daemon.dispatcher import Dispatcher
from fastfit_watch.daemon.logs import set_up_logs
from fastfit_watch.daemon.retention import RetentionThread
from fastfit_watch.daemon.worker_process import WorkerProcess, WorkerState, worker_command
from fastfit_watch.domain.daemon_state import DAEMON_NOTE, DaemonCondition, DaemonState
from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.domain.text import one_line
from fastfit_watch.domain.worker_protocol import Event
from fastfit_watch.imaging.content_credentials import check_signing
from fastfit_watch.intake.claim import UploadClaimer
from fastfit_watch.intake.thread import IntakeThread
from fastfit_watch.reporting.integrations import Integrations
from fastfit_watch.reporting.publisher import Publisher
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import OutputsLock, Spool, SpoolPaths
from fastfit_watch.system.backoff import backoff_s
from fastfit_watch.system.devices import find_devices
from fastfit_watch.system.exit_codes import ExitCode
from fastfit_watch.system.sd_notify import notify, watchdog_interval_s

_BUSY_WAIT_S = 0.25
_IDLE_WAIT_S = 1.0
_LEDGER_WAIT_S = 30.0
_HEARTBEAT_S = 15.0
_EXTENSION_S = 120
_STATUS_PAUSE_S = 2.0
_JOIN_S = 10.0
_JOIN_AT_ONCE_S = 1.0
_TELL_LAST_S = 5.0  # for notifications; what is left is sent after the next start
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
        self._mail: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._stops = 0
        self._reload = False
        self._workers: list[WorkerProcess] = []
        # From here on a signal is a wish. Before, SIGHUP would end the process, and systemd calls that a clean exit.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        _make_folders(config)
        if config.marks.finish.signing is not None:
            check_signing(config.marks.finish.signing)
        self._spool = Spool(SpoolPaths(config.inputs), config.limits)
        self._spool.lock()
        self._outputs_lock = OutputsLock(config.outputs)
        self._outputs_lock.take()
        set_up_logs(config.log, config.logs, config.outputs)
        self._ledger = self._open_ledger()
        devices = find_devices(config.engine.devices)
        self._workers = [
            WorkerProcess(device, command(config, device), config.engine, self._mail) for device in devices
        ]
        self._publisher = Publisher(config, self._ledger, len(devices))
        self._dispatch = Dispatcher(config, self._ledger, self._spool, self._workers, self._publisher)
        self._retention = RetentionThread(config, self._ledger, self._spool)
        self._others = Integrations(config, self._spool.paths.ledger)
        self._intake = IntakeThread(config, self._ledger, UploadClaimer(self._spool, config.limits), self._note_job)
        self._began_s = time.time()
        self._stopping = False
        self._lost_thread = ""
        self._told_ready = False
        self._told_status: tuple[str, float] = ("", float("-inf"))
        self._heartbeat: tuple[str, float] = ("", float("-inf"))
        self._watchdog_s = watchdog_interval_s()
        self._watchdog_at_s = 0.0

    def _open_ledger(self) -> Ledger:
        """Open the ledger; on a full or failing disk wait for it, as later on, until somebody stops us."""
        failures = 0
        while True:
            try:
                return Ledger(self._spool.paths.ledger)
            except StorageError as error:
                if self._once or self._stops:
                    raise
                failures += 1
                logger.error("the queue stands still: {}", error)
                notify(f"STATUS={one_line(str(error))}\nEXTEND_TIMEOUT_USEC={_EXTENSION_S * 1_000_000}")
            with contextlib.suppress(queue.Empty):
                self._mail.get(timeout=backoff_s(failures, _BUSY_WAIT_S, _LEDGER_WAIT_S))

    def run(self) -> ExitCode:
        """Work until a signal comes or, with `once`, until everything complete is processed."""
        # SIGABRT is how systemd ends a daemon whose watchdog ran out: say where every thread stood.
        faulthandler.enable()
        threading.excepthook = self._on_thread_death
        logger.info("watching {} with bundle {}", self._config.inputs, self._config.bundle)
        self._publisher.start()
        self._others.start()
        self._retention.start()
        self._intake.start()
        try:
            return self._loop()
        except Exception:  # noqa: BLE001 - whatever it is, the log must have it, in the log's own form
            logger.exception("an unexpected error ends the daemon; the next start goes on where it was")
            return ExitCode.FAILED
        finally:
            self._close()

    def _loop(self) -> ExitCode:
        while True:
            events = self._wait()
            now_s, clock_s = time.time(), time.monotonic()
            self._others.count(events)
            if self._lost_thread:
                logger.critical("the thread '{}' is gone: ending, the next start goes on", self._lost_thread)
                return ExitCode.FAILED
            if self._reload and not self._stops:
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
        calm = all(worker.state is WorkerState.OFF or worker.is_resting for worker in self._workers)
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
        if self._stops > 1:
            for worker in self._workers:
                worker.kill()  # here, because the loop may be waiting for one of them to end by itself
        self._mail.put(None)

    def _on_thread_death(self, death: threading.ExceptHookArgs) -> None:
        """A thread ended by an error nobody caught. Without it the daemon would seem alive and do half its work."""
        name = death.thread.name if death.thread is not None else "unknown"
        logger.opt(exception=death.exc_value).critical("the thread '{}' ended by an unexpected error", name)
        self._lost_thread = name
        self._mail.put(None)

    def _note_job(self, job: Job) -> None:
        """Intake changed a job: tell people, and let dispatch look at the queue."""
        self._publisher.note_job(job.id)
        if self._mail.empty():  # one wake is enough for any number of changes
            self._mail.put(None)

    def _begin_stop(self) -> None:
        logger.info("stopping: a look in hand is finished first, the rest is kept")
        self._stopping = True
        notify("STOPPING=1")
        self._intake.request_stop()
        self._dispatch.request_stop()

    def _close(self) -> None:
        self._intake.stop(_JOIN_S if self._stops < 2 else _JOIN_AT_ONCE_S)
        for worker in self._workers:
            worker.request_stop()
        for worker in self._workers:
            worker.stop()
        self._retention.stop()
        self._publisher.note_halt(f"the daemon stopped at {time.strftime('%Y-%m-%d %H:%M:%S %z')}")
        self._publisher.stop()
        self._others.stop(_TELL_LAST_S if self._stops < 2 else 0.0)
        try:
            self._ledger.put_note(DAEMON_NOTE, DaemonState(DaemonCondition.STOPPED, os.getpid(), time.time()).to_json())
        except StorageError as error:
            logger.warning("{}", error)
        self._ledger.close()
        self._outputs_lock.release()
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
        state = DaemonState(DaemonCondition.RUNNING, os.getpid(), now_s, text, self._intake.mode)
        try:
            self._ledger.put_note(DAEMON_NOTE, state.to_json())
        except StorageError as error:
            logger.warning("{}", error)

    def _tell_systemd(self, text: str, clock_s: float) -> None:
        told, told_s = self._told_status
        work = self._dispatch.describe_work()
        status = one_line(f"{'stopping; ' if self._stopping else ''}{work or text}")
        if status != told and (text != self._heartbeat[0] or clock_s - told_s >= _STATUS_PAUSE_S):
            notify(f"STATUS={status}")
            self._told_status = (status, clock_s)
        if not self._told_ready:
            # A daemon whose engine cannot be loaded still takes uploads and says why: it is ready for that.
            loading = any(not worker.is_ready and not worker.load_failures for worker in self._workers)
            self._told_ready = not loading and notify("READY=1")
        healthy = self._intake.is_alive and all(worker.is_fresh(clock_s) for worker in self._workers)
        if clock_s < self._watchdog_at_s or not healthy:
            return
        self._watchdog_at_s = clock_s + (self._watchdog_s or 3 * _HEARTBEAT_S) / 3
        notify("WATCHDOG=1")
        if self._stopping or not self._told_ready:
            # Loading, fetching weights, or a look in hand that is finished first: it moves, so it may take its time.
            notify(f"EXTEND_TIMEOUT_USEC={_EXTENSION_S * 1_000_000}")

    def _describe_engines(self) -> str:
        engines = "; ".join(worker.describe() for worker in self._workers)
        return f"{engines}; queue standing still: {self._dispatch.held}" if self._dispatch.held else engines

    # Once

    def _has_work(self) -> bool:
        return bool(self._ledger.jobs(_ACTIVE, limit=1))

    def _drained(self) -> ExitCode | None:
        """The exit code once nothing more can be done; None until then."""
        if self._has_work():
            if all(worker.load_failures >= _LOAD_ATTEMPTS_ONCE or worker.refused for worker in self._workers):
                logger.error("giving up: {}", self._describe_engines())
                return ExitCode.ENGINE
            if (reason := self._ledger.requests.paused()) is not None and self._dispatch.is_idle:
                logger.error("the queue is paused ({}); 'fastfit-watch resume' lets it go on", reason)
                return ExitCode.INCOMPLETE
            return None
        if not self._dispatch.is_idle or not self._intake.has_judged_all():
            return None
        return self._sum_up()

    def _sum_up(self) -> ExitCode:
        """Say what is left, and return the gravest of it."""
        codes = {ExitCode.OK}
        for job in self._ledger.jobs():
            left = job.status.is_open or (job.status is Status.FAILED and job.changed_s >= self._began_s)
            if left:
                logger.bind(job=job.id).warning("left {}: {}", job.status.value, job.reason)
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
        if self._told_ready:
            # Before READY it must not be said: READY=1, which ends a reload, would also end the start.
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._adopt(self._reread())
        except ConfigError as error:
            logger.error("the settings are kept as they were: {}", error)
        finally:
            if self._told_ready:
                notify("READY=1")

    def _adopt(self, wanted: Config) -> None:
        config = live_settings(self._config, wanted)
        for key in fixed_changes(self._config, wanted):
            logger.warning("'{}' changed: it takes effect at the next start", key)
        self._config = config
        self._dispatch.adopt(config)
        set_up_logs(config.log, config.logs, config.outputs)
        for worker in self._workers:
            worker.adopt(config.engine)
        self._intake.adopt(config)
        self._retention.adopt(config)
        logger.info("settings read again")


def _make_folders(config: Config) -> None:
    for folder in (config.inputs, config.outputs, config.logs):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder {folder} cannot be made: {error.strerror}.") from error
