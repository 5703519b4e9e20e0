"""The engine process itself, on a small bundle: what it writes, what it reports, and that a bad look harms no other."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_networks import PERSON_SIZE, write_bundle

from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.errors import EngineError, OutOfMemory, StorageError
from fastfit_watch.domain.job import LookResult
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung, ladder
from fastfit_watch.domain.receipts import Receipt, ReceiptSubject, read_receipt
from fastfit_watch.domain.worker_protocol import (
    CannotLoad,
    FailureKind,
    LookDone,
    LookFailed,
    LookOrder,
    LookStep,
    Message,
    Ready,
    WorkerExit,
    read_message,
    write_order,
    write_settings,
)
from fastfit_watch.domain.worker_settings import WorkerSettings
from fastfit_watch.worker.pipeline import blame

SUBJECT = ReceiptSubject("spring", "ab", "anna.casual", 1, {})

STEPS = 2


@dataclass(frozen=True)
class Session:
    """What one engine process said and left behind for four orders: good, not a picture, the same again, gone."""

    root: Path
    messages: Sequence[Message]
    exit_code: int
    stderr: str

    def last_of(self, token: int) -> Message:
        ends = (message for message in self.messages if isinstance(message, LookDone | LookFailed))
        return next(message for message in ends if message.token == token)


def _command(bundle: str, models: Path) -> list[str]:
    settings = WorkerSettings(EngineSetup(bundle, models, "cpu", threads=1))
    return [sys.executable, "-m", "fastfit_watch.worker", write_settings(settings)]


def _order(root: Path, token: int, person: str) -> LookOrder:
    options = SamplingOptions(steps=STEPS, seed=5)
    garments = {Category.UPPER: root / "shirt.png"}
    output, receipt = root / f"{token}.png", root / f"{token}.json"
    rungs = ladder(Rung.FULL, allow_smaller=False)
    return LookOrder(
        token, root / person, garments, options, output, receipt, {"job": "x"}, rungs, root / "withheld", SUBJECT
    )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    root = tmp_path_factory.mktemp("worker")
    write_bundle(root / "tiny")
    for number, name in enumerate(("anna", "shirt")):
        pixels = np.random.default_rng(number).integers(0, 256, (120, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{name}.png")
    (root / "text.png").write_text("not a picture")
    with (root / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            _command("tiny", root), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for token, person in enumerate(("anna.png", "text.png", "anna.png", "gone.png")):
            process.stdin.write(write_order(_order(root, token, person)) + "\n")
        process.stdin.flush()
        messages: list[Message] = []
        while sum(isinstance(message, LookDone | LookFailed) for message in messages) < 4:
            messages.append(read_message(process.stdout.readline()))
        process.stdin.close()
        exit_code = process.wait(20)
        process.stdout.close()
    yield Session(root, messages, exit_code, (root / "stderr").read_text())


def test_results_come_in_order_with_every_step(session: Session) -> None:
    ends = [message.token for message in session.messages if isinstance(message, LookDone | LookFailed)]
    assert ends == [0, 1, 2, 3]
    ready = next(message for message in session.messages if isinstance(message, Ready))
    assert (ready.bundle, ready.device, ready.versions["bundle"]) == ("tiny", "cpu", "tiny 1")
    steps = [each.step for each in session.messages if isinstance(each, LookStep) and each.token == 0 and each.step]
    assert steps == [1, STEPS]


def test_the_receipt_names_the_very_picture(session: Session) -> None:
    done = session.last_of(0)
    assert isinstance(done, LookDone)
    assert isinstance(done.result, LookResult)
    assert read_receipt((session.root / "0.json").read_text()) == Receipt(done.result, SUBJECT)
    assert hashlib.sha256((session.root / "0.png").read_bytes()).hexdigest() == done.result.sha256
    assert (done.result.height, done.result.width) == PERSON_SIZE
    assert {"parse", "denoise", "decode"} <= set(done.result.seconds)


def test_the_same_order_gives_the_same_bytes_though_a_bad_one_came_between(session: Session) -> None:
    assert (session.root / "0.png").read_bytes() == (session.root / "2.png").read_bytes()


def test_a_picture_that_cannot_be_used_is_the_inputs_fault(session: Session) -> None:
    failed = session.last_of(1)
    assert isinstance(failed, LookFailed)
    assert failed.kind is FailureKind.INPUT
    assert not (session.root / "1.png").exists()


def test_what_is_unknown_goes_to_the_log_with_its_traceback(session: Session) -> None:
    failed = session.last_of(3)
    assert isinstance(failed, LookFailed)
    assert failed.kind is FailureKind.ENGINE
    assert "Traceback" in session.stderr
    assert all(line.startswith("ERROR: ") for line in session.stderr.splitlines() if "gone.png" in line)


def test_the_end_of_its_input_ends_it(session: Session) -> None:
    assert session.exit_code == WorkerExit.STOPPED


def test_a_bundle_that_is_missing_is_said_in_words(tmp_path: Path) -> None:
    process = subprocess.Popen(_command("nothing", tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        last = [read_message(line) for line in process.stdout][-1]
        process.wait(20)  # before its input is closed, which would end it, too
    assert isinstance(last, CannotLoad)
    assert "bundle.json is missing" in last.message
    assert process.returncode == WorkerExit.CANNOT_LOAD


def test_settings_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    settings = write_settings(WorkerSettings(EngineSetup("tiny", tmp_path, "cpu")))
    for arguments in ([], ["--bundle", "tiny"], ["{}"], [settings.replace("threads", "thread")]):
        command = [sys.executable, "-m", "fastfit_watch.worker", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == WorkerExit.USAGE
        assert done.stderr.startswith("ERROR: The one argument of a worker process is its settings")
        assert "Traceback" not in done.stderr


def test_a_line_that_is_no_order_ends_it_in_words(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny")
    done = subprocess.run(
        _command("tiny", tmp_path), input="nonsense\n", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == WorkerExit.USAGE
    assert "ERROR: The daemon sent a line that is no order" in done.stderr


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OutOfMemory("full"), FailureKind.MEMORY),
        (MemoryError(), FailureKind.MEMORY),
        (StorageError("full"), FailureKind.STORAGE),
        (OSError(28, "No space left on device"), FailureKind.STORAGE),
        (EngineError("nobody there"), FailureKind.ENGINE),
        (json.JSONDecodeError("odd", "", 0), FailureKind.ENGINE),
    ],
)
def test_whose_fault_it_is(error: Exception, kind: FailureKind, tmp_path: Path) -> None:
    failed = blame(_order(tmp_path, 9, "anna.png"), error)
    assert (failed.token, failed.kind) == (9, kind)
    assert failed.message
