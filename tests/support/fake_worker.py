"""A dispatch on a real ledger and real folders. Only the engine process is played by the test."""

from __future__ import annotations

import hashlib
import queue
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from fastfit_watch.config.settings import Config, EngineSettings
from fastfit_watch.daemon.dispatcher import Dispatcher
from fastfit_watch.daemon.worker_process import WorkerProcess, WorkerState
from fastfit_watch.domain.job import ClaimIntent, LookRecord, LookResult, Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Category, ImageFormat, Look, SamplingOptions
from fastfit_watch.domain.worker_protocol import (
    Event,
    FailureKind,
    LookDone,
    LookFailed,
    LookOrder,
    LookStep,
    Message,
    Ready,
    WorkerExited,
    WorkerMessage,
)
from fastfit_watch.imaging.codec import encode_image
from fastfit_watch.reporting.publisher import Publisher
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import Spool, SpoolPaths
from fastfit_watch.system.atomic_write import write_json

PICTURE = encode_image(Image.new("RGB", (48, 64)), ImageFormat.PNG, {})
SIGSEGV = -11


class Played(WorkerProcess):
    """An engine process played by the test: it is ready at once, and keeps its orders for the test to answer."""

    def __init__(self, device: str) -> None:
        super().__init__(device, [], EngineSettings(), queue.SimpleQueue())
        self.orders: dict[str, LookOrder] = {}

    def start(self, clock_s: float) -> None:
        if self.state is WorkerState.OFF and clock_s >= self._not_before_s:
            self._life += 1
            self.handle_message(Ready(self.device, "played", 0.0, {}), clock_s)

    def send(self, record: LookRecord, order: LookOrder, clock_s: float) -> None:
        super().send(record, order, clock_s)
        self.orders[record.look.name] = order

    def kill(self) -> None:
        self.orders.clear()

    def says(self, message: Message) -> WorkerMessage:
        return WorkerMessage(self.device, self._life, message)

    def makes(self, name: str) -> WorkerMessage:
        """Make a look's picture, as the worker does: the receipt first."""
        order = self.orders[name]
        result = LookResult(order.output.name, hashlib.sha256(PICTURE).hexdigest(), 4, 3, {"denoise": 2.0}, None, "cpu")
        write_json(order.receipt, asdict(result))
        order.output.write_bytes(PICTURE)
        return self.says(LookDone(order.token, result))

    def fails(self, name: str, kind: FailureKind) -> WorkerMessage:
        return self.says(LookFailed(self.orders[name].token, kind, "it went wrong"))

    def begins(self, name: str) -> WorkerMessage:
        return self.says(LookStep(self.orders[name].token, "prepare", 0, 30))

    def dies(self, exit_code: int = SIGSEGV) -> WorkerExited:
        return WorkerExited(self.device, self._life, exit_code)


class DispatcherFixture:
    """A dispatch with its ledger, its played engines and a clock that the test moves."""

    def __init__(self, root: Path, *devices: str) -> None:
        engine = EngineSettings(max_attempts=2, backoff_s=10, max_deaths=3)
        self.config = Config(
            inputs=root / "inputs", outputs=root / "outputs", engine=engine, limits=Limits(min_free_bytes=0)
        )
        self.config.outputs.mkdir(exist_ok=True)
        self.spool = Spool(SpoolPaths(self.config.inputs), self.config.limits)
        self.spool.lock()
        self.ledger = Ledger(self.spool.paths.ledger)
        self.engines = {device: Played(device) for device in devices or ("cpu",)}
        self.publisher = Publisher(self.config, self.ledger, len(self.engines))
        self.dispatch = Dispatcher(self.config, self.ledger, self.spool, list(self.engines.values()), self.publisher)
        self.now_s = 1000.0

    @property
    def engine(self) -> Played:
        return next(iter(self.engines.values()))

    def claim(self, name: str, *looks: str) -> None:
        self.ledger.find_or_create_unclaimed(name, self.now_s)
        wanted = [Look("anna.jpg", look, {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=7)) for look in looks]
        self.ledger.begin_claim(ClaimIntent(name, "outfit.yaml", wanted, {}, "origin"), self.now_s)
        self.ledger.finish_claim(name, self.now_s)
        for folder in (self.spool.paths.snapshot(name), self.spool.paths.receipts(name)):
            folder.mkdir(parents=True)

    def step(self, *events: Event, after_s: float = 1.0) -> None:
        self.now_s += after_s
        self.dispatch.step(events, self.now_s, self.now_s)

    def look(self, name: str, job: str = "spring") -> LookRecord:
        return next(record for record in self.ledger.looks(job) if record.look.name == name)

    def job_status(self, name: str = "spring") -> Status:
        job = self.ledger.job(name)
        assert job is not None
        return job.status

    def in_hand(self, device: str = "cpu") -> list[str]:
        return [record.look.name for record in self.engines[device].in_hand.values()]

    def close(self) -> None:
        self.ledger.close()
        self.spool.unlock()
