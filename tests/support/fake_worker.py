"""A dispatcher on a real ledger and real folders. Only its workers are fakes, which the test answers for."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from fastfit_watch.config.settings import Config, EngineSettings
from fastfit_watch.daemon.dispatcher import Dispatcher
from fastfit_watch.domain.job import ClaimIntent, LookRecord, LookResult, Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Category, ImageFormat, Look, SamplingOptions
from fastfit_watch.domain.receipts import receipt_fields
from fastfit_watch.domain.worker_protocol import (
    Event,
    FailureKind,
    LookDone,
    LookFailed,
    LookOrder,
    LookStep,
    LookWithheld,
    Message,
    Ready,
    WorkerExit,
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
RESTART_PAUSE_S = 10.0


class FakeWorker:
    """A `WorkerHandle` whose worker is the test: ready at once, it keeps its orders for the test to answer."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ready: Ready | None = None
        self.orders: dict[str, LookOrder] = {}
        self._in_hand: dict[int, str] = {}
        self._life = 0
        self._not_before_s = float("-inf")

    @property
    def in_hand(self) -> tuple[int, ...]:
        return tuple(self._in_hand)

    @property
    def looks_in_hand(self) -> list[str]:
        """The names of the looks that it was sent and has not answered, oldest first."""
        return list(self._in_hand.values())

    def start(self, clock_s: float) -> None:
        if self.ready is None and clock_s >= self._not_before_s:
            self._life += 1
            self.ready = Ready(self.device, "fake", 0.0, {})

    def check(self, clock_s: float) -> None:
        """It always makes progress."""

    def send(self, order: LookOrder, clock_s: float) -> None:
        name = order.output.stem.rpartition(".")[2]
        self._in_hand[order.token] = name
        self.orders[name] = order

    def knows(self, event: Event) -> bool:
        return (event.device, event.life) == (self.device, self._life) and self.ready is not None

    def handle_message(self, message: Message, clock_s: float) -> None:
        if isinstance(message, LookDone | LookWithheld | LookFailed):
            self._in_hand.pop(message.token, None)

    def handle_exit(self, exit_code: int, clock_s: float) -> None:
        self.stop()
        self._not_before_s = clock_s + (0.0 if exit_code == WorkerExit.OUTGROWN else RESTART_PAUSE_S)

    def kill(self) -> None:
        self.orders.clear()

    def request_stop(self) -> None:
        """Its end would arrive as an event, which the test sends."""

    def stop(self, timeout_s: float = 0.0) -> None:
        self.ready = None
        self._in_hand.clear()

    # What the worker reports

    def says(self, message: Message) -> WorkerMessage:
        return WorkerMessage(self.device, self._life, message)

    def makes(self, name: str) -> WorkerMessage:
        """Make a look's picture, as the worker does: the receipt first."""
        order = self.orders[name]
        result = LookResult(order.output.name, hashlib.sha256(PICTURE).hexdigest(), 4, 3, {"denoise": 2.0}, None, "cpu")
        write_json(order.receipt, receipt_fields(result, order.subject))
        order.output.write_bytes(PICTURE)
        return self.says(LookDone(order.token, result))

    def fails(self, name: str, kind: FailureKind) -> WorkerMessage:
        return self.says(LookFailed(self.orders[name].token, kind, "it went wrong"))

    def begins(self, name: str) -> WorkerMessage:
        return self.says(LookStep(self.orders[name].token, "prepare", 0, 30))

    def dies(self, exit_code: int = SIGSEGV) -> WorkerExited:
        return WorkerExited(self.device, self._life, exit_code)


class DispatcherFixture:
    """A dispatch with its ledger, its fake workers and a clock that the test moves."""

    def __init__(self, root: Path, *devices: str) -> None:
        engine = EngineSettings(max_attempts=2, backoff_s=10, max_deaths=3)
        self.config = Config(
            inputs=root / "inputs", outputs=root / "outputs", engine=engine, limits=Limits(min_free_bytes=0)
        )
        self.config.outputs.mkdir(exist_ok=True)
        self.spool = Spool(SpoolPaths(self.config.inputs), self.config.limits)
        self.spool.lock()
        self.ledger = Ledger(self.spool.paths.ledger)
        self.engines = {device: FakeWorker(device) for device in devices or ("cpu",)}
        self.publisher = Publisher(self.config, self.ledger, len(self.engines))
        self.dispatch = Dispatcher(self.config, self.ledger, self.spool, list(self.engines.values()), self.publisher)
        self.now_s = 1000.0

    @property
    def engine(self) -> FakeWorker:
        return next(iter(self.engines.values()))

    def claim(self, name: str, *looks: str, seed: int = 7) -> None:
        self.ledger.find_or_create_unclaimed(name, self.now_s)
        wanted = [Look("anna.jpg", look, {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=seed)) for look in looks]
        self.ledger.begin_claim(ClaimIntent(name, "outfit.yaml", wanted, {}, "origin"), self.now_s)
        self.ledger.finish_claim(name, self.now_s)
        for folder in (self.spool.paths.snapshot(name), self.spool.paths.receipts(name)):
            folder.mkdir(parents=True, exist_ok=True)

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
        return self.engines[device].looks_in_hand

    def close(self) -> None:
        self.ledger.close()
        self.spool.unlock()
