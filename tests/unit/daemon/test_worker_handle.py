"""What every `WorkerHandle` does, asked of the real worker process and of the fake that the dispatcher's tests use."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_worker import RESTART_PAUSE_S, FakeWorker

from fastfit_watch.config.settings import EngineSettings
from fastfit_watch.daemon.worker_handle import WorkerHandle
from fastfit_watch.daemon.worker_process import WorkerProcess
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.receipts import ReceiptSubject
from fastfit_watch.domain.worker_protocol import (
    Event,
    FailureKind,
    LookFailed,
    LookOrder,
    Ready,
    WorkerExited,
    WorkerMessage,
    write_message,
)

PROGRAM = (
    f"import sys\nprint({write_message(Ready('cpu', 'test', 0.1, {}))!r}, flush=True)\nfor line in sys.stdin: pass"
)
SETTINGS = EngineSettings(backoff_s=RESTART_PAUSE_S)
PATIENCE_S = 240.0


class Process(WorkerProcess):
    """A real worker process, whose first event is awaited when it is started, so that it is ready at once."""

    def __init__(self) -> None:
        self.mail: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        super().__init__("cpu", [sys.executable, "-c", PROGRAM], SETTINGS, self.mail)

    def start(self, clock_s: float) -> None:
        super().start(clock_s)
        if self.ready is None and self.state != "off":
            event = self.mail.get(timeout=PATIENCE_S)
            assert isinstance(event, WorkerMessage)
            self.handle_message(event.message, clock_s)


@pytest.fixture(params=[Process, lambda: FakeWorker("cpu")], ids=["process", "fake"])
def worker(request: pytest.FixtureRequest) -> Iterator[WorkerHandle]:
    worker: WorkerHandle = request.param()
    yield worker
    worker.kill()
    worker.stop()


def order(token: int) -> LookOrder:
    picture, options = Path("/p.png"), SamplingOptions(seed=1)
    output, receipt = Path("/anna.a.png"), Path("/r.json")
    garments, rungs = {Category.UPPER: picture}, (Rung.FULL,)
    subject = ReceiptSubject("spring", "ab", "anna.a", 1, options.to_dict())
    return LookOrder(token, picture, garments, options, output, receipt, {}, rungs, Path("/w"), subject)


def test_an_order_is_in_hand_until_it_is_answered(worker: WorkerHandle) -> None:
    assert worker.ready is None
    worker.start(0.0)
    assert worker.ready is not None
    worker.send(order(1), 1.0)
    worker.send(order(2), 1.0)
    assert worker.in_hand == (1, 2)
    worker.handle_message(LookFailed(1, FailureKind.INPUT, "no"), 2.0)
    assert worker.in_hand == (2,)


def test_after_its_end_nothing_is_in_hand_and_the_next_start_waits(worker: WorkerHandle) -> None:
    worker.start(0.0)
    worker.send(order(1), 0.0)
    assert worker.knows(WorkerExited("cpu", 1, -9))
    worker.kill()
    worker.handle_exit(-9, 0.0)
    assert (worker.in_hand, worker.ready) == ((), None)
    assert not worker.knows(WorkerExited("cpu", 1, -9))
    worker.start(RESTART_PAUSE_S / 2)
    assert worker.ready is None


def test_what_a_former_process_reported_is_not_known(worker: WorkerHandle) -> None:
    worker.start(0.0)
    worker.handle_exit(0, 0.0)
    if isinstance(worker, Process):
        assert worker.mail.get(timeout=PATIENCE_S) == WorkerExited("cpu", 1, 0)
    worker.start(RESTART_PAUSE_S)
    assert not worker.knows(WorkerExited("cpu", 1, 0))
    assert worker.knows(WorkerExited("cpu", 2, 0))


def test_a_stopped_worker_takes_no_looks(worker: WorkerHandle) -> None:
    worker.start(0.0)
    worker.request_stop()
    worker.stop()
    assert worker.ready is None
