"""The engine process: real child processes that answer, die, hang and babble."""

from __future__ import annotations

import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger

from fastfit_watch.config.settings import EngineSettings
from fastfit_watch.daemon.worker_process import WorkerProcess, WorkerState, describe_exit
from fastfit_watch.domain.job import LookRecord, LookResult, LookStatus
from fastfit_watch.domain.look import Category, Framing, ImageFormat, Look, MaskMode, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.receipts import ReceiptSubject
from fastfit_watch.domain.worker_protocol import (
    Event,
    FailureKind,
    Loading,
    LookDone,
    LookFailed,
    LookOrder,
    LookStep,
    Ready,
    WorkerExited,
    WorkerMessage,
    write_message,
)
from fastfit_watch.system.devices import count_gpus, find_devices

READY = write_message(Ready("cpu", "test", 0.1, {}))
# Says it is ready, then answers every order with one step.
ECHO = f"""
import json, sys
print({READY!r}, flush=True)
for line in sys.stdin:
    print(json.dumps(dict(type="progress", token=json.loads(line)["token"], stage="s", step=1, steps=2)), flush=True)
"""
SETTINGS = EngineSettings(backoff_s=10, backoff_max_s=30, stall_s=50, load_timeout_s=100)
OPTIONS = SamplingOptions(3, 5, 2.0, MaskMode.WORN, Framing.PASTE_BACK, ImageFormat.WEBP)
RUNGS = (Rung.OFFLOAD, Rung.TILES)
ORDER = LookOrder(
    7,
    Path("/p.png"),
    {Category.BAG: Path("/b\n.png")},
    OPTIONS,
    Path("/o.webp"),
    Path("/r"),
    {"a": "ü"},
    RUNGS,
    Path("/w"),
    ReceiptSubject("spring", "ab", "anna.casual", 2, OPTIONS.to_dict()),
)
RECORD = LookRecord("spring", 0, Look("anna.jpg", "casual", {}), LookStatus.RUNNING)
Make = Callable[[str], WorkerProcess]


@pytest.fixture
def mail() -> queue.SimpleQueue[Event | None]:
    return queue.SimpleQueue()


@pytest.fixture
def make(mail: queue.SimpleQueue[Event | None]) -> Iterator[Make]:
    made: list[WorkerProcess] = []

    def make(program: str) -> WorkerProcess:
        made.append(WorkerProcess("cpu", [sys.executable, "-c", program], SETTINGS, mail))
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def get(mail: queue.SimpleQueue[Event | None]) -> Event:
    event = mail.get(timeout=120)
    assert event is not None
    return event


def start_ready(make: Make, mail: queue.SimpleQueue[Event | None], program: str = ECHO) -> tuple[WorkerProcess, int]:
    """A resident that said it is ready at second 1, and its process id."""
    worker = make(program)
    worker.start(0.0)
    event = get(mail)
    assert isinstance(event, WorkerMessage)
    worker.handle_message(event.message, 1.0)
    assert worker.is_resting
    assert worker._process is not None
    return worker, worker._process.pid


def test_a_look_is_handed_over_and_progress_comes_back(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    worker, _ = start_ready(make, mail)
    worker.send(ORDER, 2.0)
    event = get(mail)
    assert event == WorkerMessage("cpu", 1, LookStep(7, "s", 1, 2))
    assert worker.knows(event)
    assert worker.in_hand == (7,)
    worker.handle_message(LookFailed(7, FailureKind.INPUT, "no"), 3.0)
    assert worker.is_resting


def test_a_killed_process_is_noticed_at_once(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    began_s = time.monotonic()
    _, pid = start_ready(make, mail)
    start_s, killed_s = time.monotonic() - began_s, time.monotonic()
    os.kill(pid, signal.SIGKILL)
    assert get(mail) == WorkerExited("cpu", 1, -signal.SIGKILL)
    assert time.monotonic() - killed_s < 10 * start_s, "one that asked now and then would be later"


def test_each_start_waits_twice_as_long_until_a_look_is_done(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    worker = make("raise SystemExit(1)")
    clock_s = 0.0
    for pause_s in (10.0, 20.0, 30.0, 30.0):
        worker.start(clock_s)
        assert get(mail) == WorkerExited("cpu", worker._life, 1)
        worker.handle_exit(1, clock_s)
        worker.start(clock_s + pause_s - 0.1)
        assert worker.state is WorkerState.OFF
        clock_s += pause_s
    assert worker.load_failures == 4
    assert "exit code 1" in worker.describe()
    worker.handle_message(LookDone(1, LookResult("a.png", "", 1, 1, {}, None, "cpu")), clock_s)
    worker.handle_exit(1, clock_s)
    worker.start(clock_s + 10.0)
    assert worker.state is WorkerState.LOADING


def test_only_a_process_without_progress_is_ended(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    worker, _ = start_ready(make, mail)
    for clock_s in range(2, 300, 5):
        worker.check(float(clock_s))  # idle for long: nothing is wrong
    worker.send(ORDER, 300.0)
    assert isinstance(get(mail), WorkerMessage)
    for clock_s in range(300, 351, 5):
        worker.check(float(clock_s))
    assert mail.empty()
    assert not worker.is_fresh(351.0)
    worker.check(351.0)
    assert get(mail) == WorkerExited("cpu", 1, -signal.SIGKILL)


def test_a_daemon_that_slept_blames_no_one(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    worker, _ = start_ready(make, mail)
    worker.send(ORDER, 2.0)
    assert isinstance(get(mail), WorkerMessage)
    worker.check(3.0)
    worker.check(1000.0)
    with pytest.raises(queue.Empty):
        mail.get(timeout=0.5)


def test_loading_too_long_is_ended_and_explained(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    worker = make("import time; time.sleep(60)")
    worker.start(0.0)
    for clock_s in range(0, 110, 5):
        worker.check(float(clock_s))
    assert isinstance(get(mail), WorkerExited)
    assert worker.describe() == "cpu cannot load the engine: loading took longer than 100 s"


def test_a_process_that_cannot_be_started_is_explained_and_tried_again(mail: queue.SimpleQueue[Event | None]) -> None:
    worker = WorkerProcess("cpu", ["/nowhere/python"], SETTINGS, mail)
    worker.start(0.0)
    assert worker.state is WorkerState.OFF and worker.load_failures == 1
    assert "cannot be started: No such file or directory" in worker.describe()
    worker.start(9.9)
    assert worker.load_failures == 1, "the next start waits for backoff_s"
    worker.start(10.1)
    assert worker.load_failures == 2


def test_what_a_former_process_said_is_ignored(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    worker, pid = start_ready(make, mail)
    os.kill(pid, signal.SIGKILL)
    get(mail)
    worker.handle_exit(-9, 2.0)
    assert not worker.knows(WorkerMessage("cpu", 1, Loading("late")))
    worker.start(100.0)
    assert not worker.knows(WorkerExited("cpu", 1, -9))
    assert worker.knows(get(mail))


def test_noise_is_logged_at_its_level_and_does_no_harm(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    lines: list[str] = []
    sink = logger.add(lambda text: lines.append(str(text).strip()), format="{level} {message}")
    noise = "import sys; print('babble'); print('ERROR: bad', file=sys.stderr); print('hm', file=sys.stderr)\n"
    worker, _ = start_ready(make, mail, noise + ECHO)
    worker.stop()
    assert isinstance(get(mail), WorkerExited)
    deadline_s = time.monotonic() + 120
    while "INFO cpu: hm" not in lines and time.monotonic() < deadline_s:
        time.sleep(0.01)
    logger.remove(sink)
    assert {
        "ERROR cpu: bad",
        "INFO cpu: hm",
        "ERROR cpu: the engine process sent no message: babble",
    } <= set(lines)


def test_closing_its_input_ends_the_process(make: Make, mail: queue.SimpleQueue[Event | None]) -> None:
    worker, _ = start_ready(make, mail)
    worker.stop()
    assert get(mail) == WorkerExited("cpu", 1, 0)


def test_exits_are_described_for_people() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-11) == "signal SIGSEGV"


def test_devices_are_found_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\nfor i in 0 1 2 3; do echo "GPU $i: NVIDIA (UUID: GPU-$i)"; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert find_devices(("auto",), {}) == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert find_devices(("cuda:1", "auto"), {"CUDA_VISIBLE_DEVICES": "2,0"}) == ("cuda:1", "cuda:0")
    assert count_gpus({"CUDA_VISIBLE_DEVICES": "0,9,1"}) == 1
    assert count_gpus({"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2"}) == 2
    assert find_devices(("auto",), {"CUDA_VISIBLE_DEVICES": "-1"}) == ("cpu",)
    program.write_text("#!/bin/sh\nexit 9\n")
    if not Path("/proc/driver/nvidia/gpus").exists():
        assert find_devices(("auto",), {}) == ("cpu",)
