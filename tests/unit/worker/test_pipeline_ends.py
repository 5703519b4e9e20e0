"""Where looks are made, as a process of its own with a played engine: what ends it, and that nothing is tried after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.receipts import ReceiptSubject
from fastfit_watch.domain.worker_protocol import LookFailed, LookOrder, Message, WorkerExit, read_message, write_order

SUBJECT = ReceiptSubject("spring", "ab", "anna.casual", 1, {})
# Its engine raises ERROR for every look, and notes that it was asked. After the answer to the third it ends with 99.
PROGRAM = """
import os, queue, sys
from pathlib import Path
from fastfit_watch.worker.channel import DaemonChannel
from fastfit_watch.domain.worker_protocol import read_order
from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.worker_settings import WorkerSettings
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.worker.engine_loading import LoadedEngine
from fastfit_watch.worker.pipeline import LookPipeline


class Engine:
    rung = Rung.FULL
    def at(self, rung): return self
    def drop_caches(self): return False
    def prepare(self, person, garments, options): return object()
    def denoise_and_decode(self, prepared, on_step):
        with open("asked", "a") as file: file.write("look\\n")
        raise {error}

class Answers(DaemonChannel):
    count = 0
    def send(self, message):
        super().send(message)
        self.count += type(message).__name__ == "LookFailed"
        if self.count == 3: os._exit(99)

settings = WorkerSettings(EngineSetup("tiny", Path(), "cpu"), max_rss_bytes={max_rss_bytes})
orders = queue.SimpleQueue()
for line in sys.stdin: orders.put(read_order(line))
os._exit(LookPipeline(LoadedEngine(Engine(), None, {{}}), Answers(), settings).work(orders))
"""


def run(root: Path, error: str, max_rss_bytes: int = 0) -> tuple[int, list[Message], int]:
    """Three looks; returns the exit code, what was answered, and how often the engine was asked."""
    picture = root / "anna.png"
    Image.new("RGB", (48, 64)).save(picture)
    options = SamplingOptions(steps=2, seed=5)
    garments, paths = {Category.UPPER: picture}, (root / "o.png", root / "r.json")
    orders = [
        LookOrder(token, picture, garments, options, *paths, {}, (Rung.FULL,), root / "w", SUBJECT)
        for token in range(3)
    ]
    program = PROGRAM.format(error=error, max_rss_bytes=max_rss_bytes)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        input="".join(write_order(order) + "\n" for order in orders),
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    answers = [message for line in done.stdout.splitlines() if isinstance(message := read_message(line), LookFailed)]
    return done.returncode, list(answers), len((root / "asked").read_text().split())


@pytest.mark.parametrize(
    "error",
    [
        'RuntimeError("CUDA error: an illegal memory access was encountered")',
        'type("AcceleratorError", (RuntimeError,), {})("unspecified launch failure")',
        'RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")',
        'RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx")',
    ],
)
def test_nothing_more_is_tried_in_a_poisoned_context(tmp_path: Path, error: str) -> None:
    exit_code, answers, asked = run(tmp_path, error)
    assert exit_code == WorkerExit.DEVICE_UNUSABLE
    assert asked == 1
    assert [answer.token for answer in answers if isinstance(answer, LookFailed)] == [0], "the failure was told before"


def test_an_error_of_one_look_leaves_the_process_to_the_next(tmp_path: Path) -> None:
    exit_code, answers, asked = run(tmp_path, 'ValueError("odd")')
    assert (exit_code, asked, len(answers)) == (99, 3, 3)


def test_a_process_above_its_memory_ends_after_its_look_and_not_before(tmp_path: Path) -> None:
    exit_code, answers, asked = run(tmp_path, 'ValueError("odd")', max_rss_bytes=1)
    assert (exit_code, asked, len(answers)) == (WorkerExit.OUTGROWN, 1, 1)
    (tmp_path / "asked").unlink()
    assert run(tmp_path, 'ValueError("odd")', max_rss_bytes=2**40)[0] == 99
