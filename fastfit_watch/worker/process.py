"""The engine's own process: load once, then look after look.

Started by `resident` as `python -m fastfit_watch.worker`. Orders come in on standard input, messages go out on what was
standard output (see `protocol`). It ends when standard input ends, or with the daemon. Its log goes to standard error,
each line led by its level.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from fastfit_watch.bundles.progress import DownloadProgress
from fastfit_watch.config.settings import ContentFilterSettings
from fastfit_watch.domain.errors import FastFitError
from fastfit_watch.domain.finishing import Finishing
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.text import gigabytes
from fastfit_watch.domain.worker_protocol import CannotLoad, Fetching, Loading, LookOrder, Ready, WorkerExit, read_order
from fastfit_watch.system.child_process import end_with_parent
from fastfit_watch.system.malloc import keep_freed_memory
from fastfit_watch.worker.channel import DaemonChannel, log_line
from fastfit_watch.worker.engine_loading import EngineSetup, load_engine
from fastfit_watch.worker.pipeline import LookPipeline


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the bundle, then make looks until standard input ends."""
    settings = _parse(arguments)
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
        loaded = load_engine(_setup_of(settings), _ChannelProgress(channel), lambda stage: channel.send(Loading(stage)))
    except FastFitError as error:
        channel.send(CannotLoad(str(error)))
        return WorkerExit.CANNOT_LOAD
    except Exception as error:  # noqa: BLE001 - whatever it is, people must be told why nothing moves
        log_line("ERROR", "".join(traceback.format_exception(error)))
        channel.send(CannotLoad(f"{type(error).__name__}: {error}"))
        return WorkerExit.CANNOT_LOAD
    from fastfit_watch.engine.device_name import describe_card

    load_s, card = time.monotonic() - started_s, describe_card(settings.device)
    channel.send(Ready(settings.device, loaded.engine.bundle.name, load_s, loaded.versions, card))
    return LookPipeline(loaded, channel, settings).work(orders)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fastfit_watch.worker", description="The engine process of fastfit-watch.")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cache-bytes", type=int, nargs=2, default=(8 * 2**30, 2**30))
    parser.add_argument("--pose", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--densepose", choices=("builtin", "detectron2"), default="builtin")
    parser.add_argument("--memory-bytes", type=int, default=0)
    parser.add_argument("--max-rss-bytes", type=int, default=0)
    parser.add_argument("--rungs", type=lambda text: tuple(map(Rung, text.split(","))), default=tuple(Rung))
    parser.add_argument("--finish", type=Finishing.from_json, default=Finishing())
    parser.add_argument("--content-filter", type=ContentFilterSettings.model_validate_json)
    return parser.parse_args(arguments)


def _read_orders(orders: queue.SimpleQueue[LookOrder]) -> None:
    """Queue every order. The end of standard input ends the process at once: what it had in hand is made again."""
    for line in sys.stdin:
        orders.put(read_order(line))
    os._exit(WorkerExit.STOPPED)


def _setup_of(settings: argparse.Namespace) -> EngineSetup:
    return EngineSetup(
        settings.bundle,
        settings.models,
        settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        pose=settings.pose,
        densepose=settings.densepose,
        cache_bytes=tuple(settings.cache_bytes),
        memory_bytes=settings.memory_bytes,
        rungs=settings.rungs,
        content_filter=settings.content_filter,
    )


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
