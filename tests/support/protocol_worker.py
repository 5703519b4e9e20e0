"""An engine process without an engine: speaks the worker protocol, and misbehaves as the names of looks ask for.

The part of a look's name before "-" says what happens: `crash` dies by SIGKILL, `segfault` by SIGSEGV, `hang` never
answers, `freeze` is stopped by SIGSTOP, `sticky` fails and leaves the device unusable, `grow` is made and holds too
much memory then, `oom`, `input`, `engine` and `disk` report such a failure, `orphan` kills the daemon once its picture
is written, `murder` kills the daemon before, `slow` takes a while, `steps` takes 3 s and reports progress, `stuck`
hangs in a way that no signal ends. `crash-once` and the like do it only the first time. Anything else is made at once.

Every look begun is a line in NOTES/begun; who began it is one in NOTES/pids, and this process's id is in NOTES/pid.
NOTES/load may hold `refuse`, `crash`, `exit` or `hang`, or `fetch`: then weights are fetched while it is there.
"""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import LookResult
from fastfit_watch.domain.receipts import receipt_fields
from fastfit_watch.domain.worker_protocol import (
    CannotLoad,
    FailureKind,
    Fetching,
    LookDone,
    LookFailed,
    LookOrder,
    LookStep,
    Message,
    Ready,
    WorkerExit,
    read_order,
    write_message,
)
from fastfit_watch.imaging.codec import encode_image
from fastfit_watch.system.atomic_write import write_bytes, write_json
from fastfit_watch.system.child_process import end_with_parent

SLOW_S = 0.7
STEPS, STEP_S = 20, 0.15
FAILURES = {
    "oom": (FailureKind.MEMORY, "The device is full."),
    "input": (FailureKind.INPUT, "Nobody is in the picture."),
    "engine": (FailureKind.ENGINE, "Something broke."),
    "disk": (FailureKind.STORAGE, "No space left on device."),
}


def main(notes: Path) -> None:
    end_with_parent()
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: Message) -> None:
        pipe.write(write_message(message) + "\n")

    (notes / "pid").write_text(str(os.getpid()))
    _load(notes, say)
    orders: queue.SimpleQueue[LookOrder] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    while True:
        _obey(orders.get(), notes, say)


def _read(orders: queue.SimpleQueue[LookOrder]) -> None:
    """As the real one does: the end of its orders ends the process, whatever it has in hand."""
    for line in sys.stdin:
        orders.put(read_order(line))
    os._exit(WorkerExit.STOPPED)


def _load(notes: Path, say: Callable[[Message], None]) -> None:
    manner = (notes / "load").read_text() if (notes / "load").exists() else ""
    if manner == "refuse":
        say(CannotLoad("unet.safetensors is missing."))
        sys.exit(10)
    if manner == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if manner == "exit":
        sys.exit(3)
    if manner == "hang":
        time.sleep(600)
    number = 0
    while manner == "fetch" and (notes / "load").exists():
        number += 1
        say(Fetching(f"fetching weights, part {number}"))
        time.sleep(0.1)
    say(Ready("cpu", "protocol", 0.0, {}))


def _obey(order: LookOrder, notes: Path, say: Callable[[Message], None]) -> None:
    key = order.output.stem
    with (notes / "begun").open("a") as file:
        file.write(f"{order.output.parent.name}/{key}\n")
    with (notes / "pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    say(LookStep(order.token, "denoise", 1, order.options.steps))
    deed, _, once = key.rsplit(".", 1)[-1].partition("-")
    seen = notes / f"{order.output.parent.name}.{key}.seen"
    if once == "once" and seen.exists():
        deed = ""
    seen.touch()
    for step in range(STEPS if deed == "steps" else 0):
        say(LookStep(order.token, "denoise", step + 1, STEPS))
        time.sleep(STEP_S)
    if deed == "stuck":
        _hold_pipe(notes)
    _misbehave(deed)
    if deed in FAILURES and not (deed == "disk" and not (notes / "full").exists()):
        say(LookFailed(order.token, *FAILURES[deed]))
        return
    if deed == "sticky":
        say(LookFailed(order.token, FailureKind.ENGINE, "CUDA error: an illegal memory access was encountered"))
        sys.exit(WorkerExit.DEVICE_UNUSABLE)
    try:
        result = _save(order)
    except StorageError as error:
        say(LookFailed(order.token, FailureKind.STORAGE, str(error)))
        return
    if deed == "mute":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "orphan":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    say(LookDone(order.token, result))
    if deed == "grow":
        sys.exit(WorkerExit.OUTGROWN)


def _hold_pipe(notes: Path) -> None:
    """Leave a child that outlives the kill and keeps the pipe: to the daemon, as if a driver held the process."""
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(120)
        os._exit(0)
    (notes / "holder").write_text(str(child))


def _misbehave(deed: str) -> None:
    ends = {"crash": signal.SIGKILL, "segfault": signal.SIGSEGV, "freeze": signal.SIGSTOP}
    if deed in ends:
        os.kill(os.getpid(), ends[deed])
    if deed == "murder":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    if deed in ("hang", "stuck"):
        time.sleep(600)
    if deed == "slow":
        time.sleep(SLOW_S)


def _save(order: LookOrder) -> LookResult:
    """A picture that depends on the seed and the person alone, as a real one does on all its inputs."""
    digest = hashlib.sha256(order.person.read_bytes() + str(order.options.seed).encode()).digest()
    data = encode_image(Image.new("RGB", (24, 32), tuple(digest[:3])), order.options.format, order.marks)
    sha256 = hashlib.sha256(data).hexdigest()
    result = LookResult(order.output.name, sha256, 32, 24, {"denoise": 0.1}, None, "cpu", {"protocol": "1"})
    write_json(order.receipt, receipt_fields(result, order.subject))
    write_bytes(order.output, data)
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1]))
