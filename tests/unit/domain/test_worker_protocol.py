"""The lines between the daemon and a worker process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastfit_watch.domain.engine_setup import EngineSetup, FilterSetup
from fastfit_watch.domain.finishing import Finishing, SigningIdentity
from fastfit_watch.domain.job import LookResult
from fastfit_watch.domain.look import Category, Framing, ImageFormat, MaskMode, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.receipts import ReceiptSubject
from fastfit_watch.domain.worker_protocol import (
    CannotLoad,
    FailureKind,
    Loading,
    LookDone,
    LookFailed,
    LookOrder,
    LookStep,
    LookWithheld,
    Message,
    Ready,
    RungLowered,
    read_message,
    read_order,
    read_settings,
    write_message,
    write_order,
    write_settings,
)
from fastfit_watch.domain.worker_settings import WorkerSettings

ORDER = LookOrder(
    7,
    Path("/p.png"),
    {Category.BAG: Path("/b\n.png")},
    SamplingOptions(3, 5, 2.0, MaskMode.WORN, Framing.PASTE_BACK, ImageFormat.WEBP),
    Path("/not UTF-8 \udcff/o.webp"),
    Path("/r"),
    {"a": "ü"},
    (Rung.OFFLOAD, Rung.TILES),
    Path("/w"),
    ReceiptSubject("spring", "ab", "anna.casual", 2, {"seed": 5, "guidance": 2.0, "mask": "worn"}),
    {"p.png": "00"},
)


@pytest.mark.parametrize(
    "message",
    [
        Loading("models"),
        Ready("cuda:0", "mini", 1.5, {"torch": "2"}),
        CannotLoad("no weights"),
        LookStep(3, "denoise", 4, 30),
        RungLowered(3, Rung.FULL, Rung.HALVES, "The device is full."),
        LookWithheld(3, "the content filter sees it"),
        LookDone(3, LookResult("a.png", "00", 4, 3, {"denoise": 1.0}, None, "cpu", {"torch": "2"})),
        LookFailed(3, FailureKind.MEMORY, "full\nof lines"),
    ],
)
def test_messages_survive_the_pipe(message: Message) -> None:
    line = write_message(message)
    assert "\n" not in line
    assert read_message(line) == message


def test_orders_survive_the_pipe() -> None:
    line = write_order(ORDER)
    assert "\n" not in line
    assert read_order(line) == ORDER


@pytest.mark.parametrize(
    "settings",
    [
        WorkerSettings(EngineSetup("mini", Path("Models"), "cpu")),
        WorkerSettings(
            EngineSetup(
                "mini",
                Path("/Models"),
                "cuda:1",
                rungs=(Rung.HALVES, Rung.SMALLER),
                content_filter=FilterSetup("classifier", ("nsfw",), 0.5, "gpu"),
            ),
            Finishing("AI-generated", SigningIdentity(Path("c.pem"), Path("k.pem"), "es256", "http://t")),
            max_rss_bytes=10**9,
        ),
    ],
)
def test_settings_survive_the_command_line(settings: WorkerSettings) -> None:
    assert read_settings(write_settings(settings)) == settings


@pytest.mark.parametrize(
    "line",
    [
        "",
        "babble",
        "[]",
        "null",
        "{}",
        '{"type": "unknown"}',
        '{"type": "loading"}',
        '{"type": "loading", "stage": 3}',
        '{"type": "loading", "stage": "models", "more": 1}',
        '{"type": "failed", "token": 1, "kind": "nobody", "message": "x"}',
        '{"type": "done", "token": 1, "result": {"file": "a.png"}}',
        '{"type": "look", "token": 1}',
    ],
)
def test_a_line_that_is_none_is_one_error(line: str) -> None:
    with pytest.raises(ValueError):
        read_message(line)
    with pytest.raises(ValueError):
        read_order(line)


@pytest.mark.parametrize("change", [{"garments": {"hat": "/h.png"}}, {"rungs": ["top"]}, {"options": {"steps": "x"}}])
def test_an_order_with_a_value_that_is_none_is_one_error(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        read_order(json.dumps({**json.loads(write_order(ORDER)), **change}))


@pytest.mark.parametrize("words", [("status",), ("check", ".")])
def test_light_commands_do_not_build_the_readers_of_messages(tmp_path: Path, words: tuple[str, ...]) -> None:
    program = (
        "import sys\nfrom fastfit_watch.cli.main import main\n"
        f"main({list(words)!r})\nassert 'fastfit_watch.cli.check' in sys.modules or 'status' in {words!r}\n"
        "sys.exit('fastfit_watch.domain.worker_protocol' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
