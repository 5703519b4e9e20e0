"""The engine's own process: load once, then make one look after the other.

Started by `daemon/worker_process.py` as `python -m fastfit_watch.worker`. Orders come in on standard input, messages go
out on what was standard output (see `domain/worker_protocol.py`). It ends when standard input ends, or with the daemon.
Its log goes to standard error, each line led by its level.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback

from fastfit_watch.bundles.progress import DownloadProgress
from fastfit_watch.domain.errors import FastFitError
from fastfit_watch.domain.text import gigabytes
from fastfit_watch.domain.worker_protocol import (
    CannotLoad,
    Fetching,
    Loading,
    LookOrder,
    Ready,
    WorkerExit,
    read_order,
    read_settings,
)
from fastfit_watch.system.child_process import end_with_parent
from fastfit_watch.system.malloc import keep_freed_memory
from fastfit_watch.worker.channel import DaemonChannel, log_line
from fastfit_watch.worker.engine_loading import load_engine
from fastfit_watch.worker.pipeline import LookPipeline


def main() -> int:
    """Load the bundle, then make looks until standard input ends. Returns the exit code."""
    try:
        [text] = sys.argv[1:]
        settings = read_settings(text)
    except ValueError as error:
        log_line("ERROR", f"The one argument of a worker process is its settings, as the daemon writes them: {error}")
        return WorkerExit.USAGE
    faulthandler.enable()  # a segmentation fault in a driver says at least where it happened
    end_with_parent()
    keep_freed_memory()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the daemon decides when this process ends
    # Before any library that would tell its makers, and ask them, about this machine.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    channel = DaemonChannel()
    orders: queue.SimpleQueue[LookOrder] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders,), name="orders", daemon=True).start()
    started_s = time.monotonic()
    try:
        loaded = load_engine(settings.engine, _ChannelProgress(channel), lambda stage: channel.send(Loading(stage)))
    except FastFitError as error:
        channel.send(CannotLoad(str(error)))
        return WorkerExit.CANNOT_LOAD
    except Exception as error:  # noqa: BLE001 - whatever it is, people must be told why nothing moves
        log_line("ERROR", "".join(traceback.format_exception(error)))
        channel.send(CannotLoad(f"{type(error).__name__}: {error}"))
        return WorkerExit.CANNOT_LOAD
    from fastfit_watch.engine.device_name import describe_card

    device = settings.engine.device
    load_s, card = time.monotonic() - started_s, describe_card(device)
    channel.send(Ready(device, loaded.engine.bundle.name, load_s, loaded.versions, card))
    return LookPipeline(loaded, channel, settings).work(orders)


def _read_orders(orders: queue.SimpleQueue[LookOrder]) -> None:
    """Queue every order. The end of standard input ends the process at once: what it had in hand is made again."""
    for line in sys.stdin:
        try:
            orders.put(read_order(line))
        except ValueError as error:  # the look would be waited for without end
            log_line("ERROR", f"The daemon sent a line that is no order: {error}")
            os._exit(WorkerExit.USAGE)
    os._exit(WorkerExit.STOPPED)


class _ChannelProgress:
    """Tells the daemon how far the weights are, and its log what people should read."""

    def __init__(self, channel: DaemonChannel) -> None:
        self._channel = channel

    def say(self, text: str) -> None:
        """A line for the log."""
        log_line("INFO", text)

    def warn(self, text: str) -> None:
        """A line for the log that nobody should miss."""
        log_line("WARNING", text)

    def show(self, progress: DownloadProgress) -> None:
        """A sign of life, and now and then a line for the log."""
        self._channel.send(Fetching(str(progress)))
        if progress.is_landmark:
            log_line("INFO", f"{progress}, {gigabytes(progress.done_bytes)} of {gigabytes(progress.total_bytes)}")
