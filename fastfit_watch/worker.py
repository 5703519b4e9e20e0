"""The engine's own process: load once, then look after look.

Started by `resident` as `python -m fastfit_watch.worker`. Orders come in on standard input, messages go out on what was
standard output (see `protocol`). It ends when standard input ends, or with the daemon. Its log goes to standard error,
each line led by its level.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.errors import EngineError, FastFitError, OutOfMemory, StorageError, UploadError
from fastfit_watch.failpoints import failpoint
from fastfit_watch.folders import STORAGE_ERRNOS
from fastfit_watch.job import LookResult
from fastfit_watch.protocol import (
    CannotLoad,
    Done,
    Failed,
    FailureKind,
    Loading,
    Message,
    Order,
    Ready,
    Step,
    WorkerExit,
    read_order,
    write_message,
)

if TYPE_CHECKING:
    from fastfit_watch.engine.bundle import Bundle
    from fastfit_watch.engine.tryon import FastFitEngine, PreparedLook, TryOnResult

_PR_SET_PDEATHSIG = 1
_VERSIONS_OF = ("fastfit-watch", "torch", "diffusers", "numpy", "pillow")


@dataclass(frozen=True)
class _Prepared:
    """An order whose pictures are read and prepared, or the reason why they could not be."""

    order: Order
    look: PreparedLook | None
    failure: Failed | None


class _Channel:
    """The pipe to the daemon. File descriptor 1 is pointed at standard error, so that no library can write here."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send one message. A daemon that is gone ends this process."""
        with self._lock:
            try:
                self._pipe.write(write_message(message) + "\n")
            except OSError:
                os._exit(WorkerExit.STOPPED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the bundle, then make looks until standard input ends."""
    settings = _parse(arguments)
    _end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the daemon decides when this process ends
    channel = _Channel()
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders,), name="orders", daemon=True).start()
    started_s = time.monotonic()
    try:
        bundle, engine, versions = _load(settings, channel)
    except FastFitError as error:
        channel.send(CannotLoad(str(error)))
        return WorkerExit.CANNOT_LOAD
    except Exception as error:  # noqa: BLE001 - whatever it is, people must be told why nothing moves
        _say("ERROR", "".join(traceback.format_exception(error)))
        channel.send(CannotLoad(f"{type(error).__name__}: {error}"))
        return WorkerExit.CANNOT_LOAD
    channel.send(Ready(settings.device, bundle.name, time.monotonic() - started_s, versions))
    return _Bench(engine, channel, settings.device, versions).work(orders)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fastfit_watch.worker", description="The engine process of fastfit-watch.")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args(arguments)


def _end_with_parent() -> None:
    """Ask the kernel to kill this process when the daemon's main thread dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _read_orders(orders: queue.SimpleQueue[Order]) -> None:
    """Queue every order. The end of standard input ends the process at once: what it had in hand is made again."""
    for line in sys.stdin:
        orders.put(read_order(line))
    os._exit(WorkerExit.STOPPED)


def _load(settings: argparse.Namespace, channel: _Channel) -> tuple[Bundle, FastFitEngine, dict[str, str]]:
    channel.send(Loading("libraries"))
    import torch

    from fastfit_watch.engine.bundle import Bundle
    from fastfit_watch.engine.tryon import FastFitEngine

    if settings.threads > 0:
        torch.set_num_threads(settings.threads)
    channel.send(Loading("models"))
    bundle = Bundle.open(bundle_folder(settings.bundle, settings.models))
    dtype = None if settings.dtype == "auto" else getattr(torch, settings.dtype)
    engine = FastFitEngine.load(bundle, settings.device, dtype)
    versions = {name: metadata.version(name) for name in _VERSIONS_OF}
    return bundle, engine, {**versions, "bundle": f"{bundle.name} {bundle.revision}"}


def bundle_folder(name: str, models: Path) -> Path:
    """The directory of a bundle: the shipped `mini`, any path with a slash, or a name in the folder `models`."""
    from fastfit_watch.engine.bundle import SHIPPED_MINI

    if name == "mini":
        return SHIPPED_MINI
    return Path(name) if "/" in name else models / name


class _Bench:
    """Where looks are made: the next one is prepared in a thread while the current one is sampled."""

    def __init__(self, engine: FastFitEngine, channel: _Channel, device: str, versions: dict[str, str]) -> None:
        self._engine, self._channel = engine, channel
        self._device, self._versions = device, versions

    def work(self, orders: queue.SimpleQueue[Order]) -> int:
        """Make one look after another, in order. Returns only when the device cannot be used any more."""
        prepared: queue.Queue[_Prepared] = queue.Queue(maxsize=1)
        threading.Thread(target=self._prepare_all, args=(orders, prepared), name="prepare", daemon=True).start()
        while True:
            ready = prepared.get()
            failure = ready.failure
            if ready.look is not None:
                failure = self._attempt(ready.order, ready.look)
            if failure is not None:
                self._channel.send(failure)
                if failure.kind is FailureKind.ENGINE and not self._device_is_usable():
                    return WorkerExit.DEVICE_UNUSABLE

    def _prepare_all(self, orders: queue.SimpleQueue[Order], prepared: queue.Queue[_Prepared]) -> None:
        while True:
            order = orders.get()
            try:
                prepared.put(_Prepared(order, self._prepare(order), None))
            except Exception as error:  # noqa: BLE001 - whatever one look does, the next one must be unharmed
                prepared.put(_Prepared(order, None, _blame(order, error)))

    def _prepare(self, order: Order) -> PreparedLook:
        from fastfit_watch.images import open_image

        self._report(order, "prepare")
        person = open_image(order.person)
        garments = {category: open_image(path) for category, path in order.garments.items()}
        return self._engine.prepare(person, garments, order.options)

    def _attempt(self, order: Order, look: PreparedLook) -> Failed | None:
        """Sample and save one look; the failure to report, if there is one."""
        try:
            self._report(order, "denoise")
            result = self._engine.sample(look, lambda step, steps: self._report(order, "denoise", step, steps))
            self._report(order, "save")
            saved = self._save(order, result)
        except Exception as error:  # noqa: BLE001 - whatever one look does, the next one must be unharmed
            return _blame(order, error)
        self._channel.send(Done(order.token, saved))
        return None

    def _save(self, order: Order, result: TryOnResult) -> LookResult:
        """Write the receipt, then the picture: a picture without its receipt is never seen."""
        from fastfit_watch.images import encode_image
        from fastfit_watch.write import write_bytes, write_json

        marks = {**order.marks, "bundle": self._versions["bundle"]}
        data = encode_image(result.image, order.options.format, marks)
        saved = LookResult(
            file=order.output.name,
            sha256=hashlib.sha256(data).hexdigest(),
            height=result.image.height,
            width=result.image.width,
            seconds=dict(result.seconds),
            peak_vram_bytes=result.peak_vram_bytes,
            device=self._device,
            versions=self._versions,
        )
        write_json(order.receipt, asdict(saved))
        failpoint("worker.receipt.after")
        write_bytes(order.output, data)
        failpoint("worker.picture.after")
        return saved

    def _report(self, order: Order, stage: str, step: int = 0, steps: int = 0) -> None:
        self._channel.send(Step(order.token, stage, step, steps or order.options.steps))

    def _device_is_usable(self) -> bool:
        """A CUDA error may poison the process for good; then a fresh one must take over."""
        if not self._device.startswith("cuda"):
            return True
        import torch

        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError as error:
            _say("ERROR", f"The device {self._device} cannot be used any more: {error}")
            return False
        return True


def _blame(order: Order, error: Exception) -> Failed:
    """Whose fault an exception is, and its sentence. What is unknown goes to the log with its traceback."""
    if isinstance(error, UploadError):
        return Failed(order.token, FailureKind.INPUT, str(error))
    if isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in STORAGE_ERRNOS):
        return Failed(order.token, FailureKind.STORAGE, str(error))
    if isinstance(error, OutOfMemory | MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failed(order.token, FailureKind.MEMORY, str(error) or "The machine ran out of memory.")
    if isinstance(error, EngineError):
        return Failed(order.token, FailureKind.ENGINE, str(error))
    _say("ERROR", f"{order.output.name}: unexpected error\n{''.join(traceback.format_exception(error))}")
    return Failed(order.token, FailureKind.ENGINE, f"{type(error).__name__}: {error}")


def _say(level: str, text: str) -> None:
    for line in text.splitlines():
        print(f"{level}: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    # Threads may hang in a library for good; what matters is on disk, so nothing is waited for.
    os._exit(main())
