"""Where an engine process makes its looks: the next is prepared and the last is saved while one is sampled."""

from __future__ import annotations

import hashlib
import os
import queue
import re
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.domain.errors import EngineError, OutOfMemory, StorageError, UploadError
from fastfit_watch.domain.job import LookResult
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.receipts import receipt_fields, withheld_receipt
from fastfit_watch.domain.worker_protocol import (
    SAVING,
    FailureKind,
    LookDone,
    LookFailed,
    LookOrder,
    LookStep,
    LookWithheld,
    Message,
    RungLowered,
    WorkerExit,
)
from fastfit_watch.domain.worker_settings import WorkerSettings
from fastfit_watch.system.disk_errors import STORAGE_ERRNOS
from fastfit_watch.system.failpoints import failpoint
from fastfit_watch.worker.channel import DaemonChannel, log_line
from fastfit_watch.worker.engine_loading import LoadedEngine
from fastfit_watch.worker.rendering import LookFiles, encode_result, prepare_look

if TYPE_CHECKING:
    from fastfit_watch.engine.tryon import PreparedLook, TryOnResult


# What torch, cuBLAS and cuDNN say when a kernel failed: the context is poisoned, and every later call fails as well.
_DEVICE_ERROR = re.compile(
    r"AcceleratorError|CUDA error|cudaError|CUBLAS_STATUS|CUDNN_STATUS|unspecified launch failure"
)


@dataclass(frozen=True)
class _PreparedOrder:
    """An order whose pictures are read and prepared, or the reason why they could not be.

    look: None if it has still to be prepared: there is no memory to do that beside the look in work.
    taken_s: monotonic seconds, when the order was taken up.
    """

    order: LookOrder
    look: PreparedLook | None
    failure: LookFailed | None
    taken_s: float


@dataclass(frozen=True)
class _DenoisedLook:
    """A look that needs the device no more. result: puts it into the photograph. objection: the content filter's."""

    order: LookOrder
    result: Callable[[], TryOnResult]
    shortages: dict[str, str]
    objection: str | None


class _DeviceLostError(Exception):
    """The device cannot be used any more by this process."""


class LookPipeline:
    """Where looks are made: the next is prepared and the last is saved, each in a thread, while one is sampled."""

    def __init__(
        self,
        loaded: LoadedEngine,
        channel: DaemonChannel,
        settings: WorkerSettings,
    ) -> None:
        self._engine, self._filter, self._channel = loaded.engine, loaded.content_filter, channel
        self._device, self._finishing, self._versions = settings.engine.device, settings.finishing, loaded.versions
        self._max_rss_bytes = settings.max_rss_bytes
        # Held while a look is prepared beside the one in work, and while the networks are moved.
        self._moving = threading.Lock()
        self._saves: queue.Queue[_DenoisedLook | LookFailed] = queue.Queue(maxsize=1)
        self._shortage: tuple[Rung, float] = (Rung.FULL, float("-inf"))

    def work(self, orders: queue.SimpleQueue[LookOrder]) -> int:
        """Make one look after another, in order. Returns the exit code when a fresh process must take over."""
        prepared: queue.Queue[_PreparedOrder] = queue.Queue(maxsize=1)
        threading.Thread(target=self._prepare_all, args=(orders, prepared), name="prepare", daemon=True).start()
        threading.Thread(target=self._save_all, name="save", daemon=True).start()
        while True:
            ready = prepared.get()
            try:
                outcome = ready.failure or self._attempt(ready)
            except _DeviceLostError:
                self._saves.join()
                return WorkerExit.DEVICE_UNUSABLE
            if isinstance(outcome, _DenoisedLook):
                self._report(outcome.order, SAVING)
            # Failures take the same way, so that results come in the order of the looks.
            self._saves.put(outcome)
            if isinstance(outcome, LookFailed):
                self._saves.join()
                if outcome.kind is FailureKind.ENGINE and not self._survives(outcome):
                    return WorkerExit.DEVICE_UNUSABLE
            if self._has_outgrown():
                self._saves.join()
                return WorkerExit.OUTGROWN

    def _prepare_all(self, orders: queue.SimpleQueue[LookOrder], prepared: queue.Queue[_PreparedOrder]) -> None:
        while True:
            order = orders.get()
            taken_s = time.monotonic()
            try:
                prepared.put(_PreparedOrder(order, self._prepare_beside(order), None, taken_s))
            except Exception as error:  # noqa: BLE001 - whatever one look does, the next one must be unharmed
                prepared.put(_PreparedOrder(order, None, blame(order, error), taken_s))

    def _prepare_beside(self, order: LookOrder) -> PreparedLook | None:
        """Prepare a look while another is in work; None where that takes more memory than there is."""
        with self._moving:
            if order.rungs[0] is not Rung.FULL or self._engine.rung is not Rung.FULL:
                return None
            try:
                return self._prepare(order)
            except OutOfMemory as error:
                log_line("INFO", f"{order.output.stem}: not prepared beside the look in work: {error.message}")
                return None

    def _prepare(self, order: LookOrder) -> PreparedLook:
        self._report(order, "prepare")
        return prepare_look(self._engine, LookFiles(order.person, order.garments, order.digests), order.options)

    def _save_all(self) -> None:
        """Compose, encode and write what is made: no work for the device, so it never waits for this."""
        while True:
            outcome = self._saves.get()
            if isinstance(outcome, LookFailed):
                self._channel.send(outcome)
            else:
                try:
                    self._channel.send(self._keep(outcome))
                except Exception as error:  # noqa: BLE001 - whatever one look does, the next one must be unharmed
                    self._channel.send(blame(outcome.order, error))
            self._saves.task_done()

    def _keep(self, made: _DenoisedLook) -> Message:
        """Save a picture where it belongs; what to tell the daemon."""
        order, result = made.order, made.result()
        if made.objection is not None:
            self._withhold(order, result, made.shortages)
            return LookWithheld(order.token, made.objection)
        return LookDone(order.token, self._save(order, order.output, order.receipt, result, made.shortages))

    def _attempt(self, ready: _PreparedOrder) -> _DenoisedLook | LookFailed:
        """Make one look, all but its file. Raises _DeviceLostError."""
        order, rungs = ready.order, self._rungs(ready)
        shortages: dict[str, str] = {}

        def note(tried: Rung, error: OutOfMemory) -> None:
            shortages[tried.value] = error.stage
            self._go_down(order, tried, rungs[rungs.index(tried) + 1], error)

        try:
            from fastfit_watch.engine.memory_ladder import descend

            result, objection = descend(rungs, lambda rung: self._make_in_room(ready, rung), note)
        except _DeviceLostError:
            raise
        except OutOfMemory as error:
            tried = "".join(f" {rung} ({stage})," for rung, stage in shortages.items())
            return LookFailed(order.token, FailureKind.MEMORY, f"{error} Tried:{tried} {rungs[-1]} ({error.stage}).")
        except Exception as error:  # noqa: BLE001 - whatever one look does, the next one must be unharmed
            return blame(order, error)
        return _DenoisedLook(order, result, shortages, objection)

    def _rungs(self, ready: _PreparedOrder) -> tuple[Rung, ...]:
        """The order's rungs. One that was given before the last shortage does not know of it yet."""
        reached, since_s = self._shortage
        known = tuple(rung for rung in ready.order.rungs if rung.reaches(reached) or ready.taken_s > since_s)
        return known or ready.order.rungs[-1:]

    def _make_in_room(self, ready: _PreparedOrder, rung: Rung) -> tuple[Callable[[], TryOnResult], str | None]:
        """Like `_make`; a device that is full of what earlier looks left there is emptied first."""
        try:
            return self._make(ready, rung)
        except OutOfMemory as error:
            stage = error.stage
            if not self._engine.drop_caches() or not self._device_is_usable():
                raise
        log_line(
            "INFO", f"{ready.order.output.stem}: the device was full in '{stage}'; once more without what was kept"
        )
        return self._make(ready, rung)

    def _make(self, ready: _PreparedOrder, rung: Rung) -> tuple[Callable[[], TryOnResult], str | None]:
        """Make one look on one rung of the ladder; how to compose it, and the content filter's objection to it."""
        order, look = ready.order, ready.look
        if self._engine.rung is not rung:  # only this thread changes it, so the device never waits for a preparation
            with self._moving:
                # From where all networks wait elsewhere, every rung can be reached, and a failure leads back there.
                self._engine = self._engine.on_rung(Rung.OFFLOAD)
                self._engine = self._engine.on_rung(rung)
        if look is None or rung.reaches(Rung.SMALLER):
            look = self._prepare(order)
        self._report(order, "denoise")
        developed = self._engine.denoise_and_decode(
            look, lambda step, steps: self._report(order, "denoise", step, steps)
        )
        if self._filter is None:
            return partial(self._engine.composite, developed), None
        result = self._engine.composite(developed)
        return lambda: result, self._filter.judge(result.image, rung)

    def _go_down(self, order: LookOrder, tried: Rung, rung: Rung, error: OutOfMemory) -> None:
        """Tell the daemon before the next rung is tried: this process may not live to tell what it learnt."""
        self._shortage = (rung, time.monotonic())
        self._channel.send(RungLowered(order.token, tried, rung, error.message))
        if not self._device_is_usable():
            raise _DeviceLostError from error

    def _withhold(self, order: LookOrder, result: TryOnResult, shortages: dict[str, str]) -> None:
        folder = order.withheld
        folder.mkdir(mode=0o700, exist_ok=True)
        receipt = withheld_receipt(folder, order.output.stem)
        self._save(order, folder / order.output.name, receipt, result, shortages)

    def _save(
        self, order: LookOrder, output: Path, receipt: Path, result: TryOnResult, shortages: dict[str, str]
    ) -> LookResult:
        """Write the receipt, then the picture: a picture without its receipt is never seen."""
        from fastfit_watch.system.atomic_write import write_bytes, write_json

        files = LookFiles(order.person, order.garments, order.digests)
        data = encode_result(result, files, order.options, self._versions, self._finishing, order.marks)
        saved = LookResult(
            file=output.name,
            sha256=hashlib.sha256(data).hexdigest(),
            height=result.image.height,
            width=result.image.width,
            seconds=dict(result.seconds),
            peak_vram_bytes=result.peak_vram_bytes,
            device=self._device,
            versions=self._versions,
            rung=result.rung.value,
            shortages=shortages,
            cache=dict(result.cache),
        )
        write_json(receipt, receipt_fields(saved, order.subject))
        failpoint("worker.receipt.after")
        write_bytes(output, data)
        failpoint("worker.picture.after")
        return saved

    def _report(self, order: LookOrder, stage: str, step: int = 0, steps: int = 0) -> None:
        rung = self._engine.rung.value
        self._channel.send(LookStep(order.token, stage, step, steps or order.options.steps, rung))

    def _survives(self, failure: LookFailed) -> bool:
        """Can this process go on after a failure? Not if the device says so, now or in the failure itself."""
        if _DEVICE_ERROR.search(failure.message):
            log_line("ERROR", f"The device {self._device} is left to a fresh process: {failure.message}")
            return False
        return self._device_is_usable()

    def _has_outgrown(self) -> bool:
        """Does this process hold more of the machine's memory than it may? Looked at between looks."""
        if not self._max_rss_bytes:
            return False
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        rss_bytes = pages * os.sysconf("SC_PAGE_SIZE")
        if rss_bytes <= self._max_rss_bytes:
            return False
        limit = f"engine.max_rss_bytes allows {self._max_rss_bytes / 1e9:.2f} GB"
        log_line("WARNING", f"This process holds {rss_bytes / 1e9:.2f} GB of memory, {limit}: a fresh one takes over.")
        return True

    def _device_is_usable(self) -> bool:
        """A CUDA error may poison the process for good; then a fresh one must take over."""
        if not self._device.startswith("cuda"):
            return True
        import torch

        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError as error:
            log_line("ERROR", f"The device {self._device} cannot be used any more: {error}")
            return False
        return True


def blame(order: LookOrder, error: Exception) -> LookFailed:
    """Whose fault an exception is, and its sentence. What is unknown goes to the log with its traceback."""
    if isinstance(error, UploadError):
        return LookFailed(order.token, FailureKind.INPUT, str(error))
    if isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in STORAGE_ERRNOS):
        return LookFailed(order.token, FailureKind.STORAGE, str(error))
    if isinstance(error, OutOfMemory | MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return LookFailed(order.token, FailureKind.MEMORY, str(error) or "The machine ran out of memory.")
    if isinstance(error, EngineError):
        return LookFailed(order.token, FailureKind.ENGINE, str(error))
    log_line("ERROR", f"{order.output.name}: unexpected error\n{''.join(traceback.format_exception(error))}")
    return LookFailed(order.token, FailureKind.ENGINE, f"{type(error).__name__}: {error}")
