"""The commands as people use them: help, exit codes, one clear line for each error."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from PIL import Image
from support.tiny_networks import write_bundle

from fastfit_watch.cli.main import build_parser, main
from fastfit_watch.domain.job import ClaimIntent
from fastfit_watch.domain.look import DRESS_CONFLICT, Category, Look, SamplingOptions
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.exit_codes import ExitCode

COMMANDS = ("run", "try-on", "check", "status", "retry", "cancel", "pause", "resume", "demo", "doctor", "service")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, name in enumerate(("anna", "shirt", "gown")):
        pixels = np.random.default_rng(number).integers(0, 256, (120, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A spool with one claimed job, "spring"."""
    inputs = tmp_path / "inputs"
    (inputs / ".spool").mkdir(parents=True)
    ledger = Ledger(inputs / ".spool" / "ledger.db")
    ledger.find_or_create_unclaimed("spring", 1.0)
    look = Look("anna.jpg", "casual", {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=7))
    ledger.begin_claim(ClaimIntent("spring", "outfit.yaml", [look], {}, "origin"), 2.0)
    ledger.finish_claim("spring", 2.0)
    ledger.close()
    return inputs


def test_help_names_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n    {command} " in text for command in COMMANDS)
    assert all(f"{code.value:3}  {code.name.lower()}" in text for code in ExitCode)


def test_no_two_exit_codes_are_one() -> None:
    assert list(ExitCode.__members__) == [code.name for code in ExitCode]


def _every_command(parser: argparse.ArgumentParser, name: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and every command below one, as the parser knows them."""
    if name:
        yield name
    for action in (each for each in parser._actions if isinstance(each, argparse._SubParsersAction)):
        for word, below in action.choices.items():
            yield from _every_command(below, (*name, word))


EVERY_COMMAND = sorted(_every_command(build_parser()))


def test_no_command_is_forgotten() -> None:
    assert {name[0] for name in EVERY_COMMAND} >= set(COMMANDS)


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_the_help_of_each_command_has_an_example_that_is_understood(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    name = " ".join(command)
    examples = re.findall(rf"^\s*example: fastfit-watch ({name}.*)$", capsys.readouterr().out, re.MULTILINE)
    assert examples
    for example in examples:
        build_parser().parse_args(shlex.split(example.partition(" > ")[0]))


def test_retry_cancel_pause_and_resume(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--inputs", str(inputs)]
    assert main(["pause", "--reason", "lunch", *where]) == ExitCode.OK
    ledger = Ledger(inputs / ".spool" / "ledger.db")
    assert ledger.requests.paused() == "lunch"
    assert main(["resume", *where]) == ExitCode.OK
    assert ledger.requests.paused() is None
    assert main(["cancel", "spring", *where]) == ExitCode.OK
    assert "spring: cancelled" in capsys.readouterr().out
    assert main(["retry", "spring", *where]) == ExitCode.OK
    assert "spring: queued" in capsys.readouterr().out
    ledger.close()


def test_impossible_wishes_are_one_line_and_no_traceback(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["retry", "nowhere", "--inputs", str(inputs)],
        ["cancel", "spring", "--inputs", str(tmp_path / "empty")],
        ["status", "--config", str(tmp_path / "missing.yaml")],
    ):
        assert main(arguments) == ExitCode.USAGE
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1


def test_a_dress_with_a_shirt_is_a_conflict(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: str(pictures / f"{name}.png") for name in ("anna", "shirt", "gown")}
    options = ["--person", files["anna"], "--upper", files["shirt"], "--dress", files["gown"]]
    assert main(["try-on", *options]) == ExitCode.USAGE
    assert DRESS_CONFLICT in capsys.readouterr().err


def test_every_file_that_cannot_be_used_has_its_line_and_no_model_is_loaded(pictures: Path) -> None:
    (pictures / "text.jpg").write_text("not a picture")
    program = (
        "import sys; from fastfit_watch.cli.main import build_parser, main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    options = ["--person", "gone.png", "--upper", "text.jpg", "--lower", "shirt.png", "--bag", "."]
    command = [sys.executable, "-c", program, "try-on", *options]
    done = subprocess.run(command, cwd=pictures, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == ExitCode.INVALID, done.stderr
    assert len(lines) == 3
    for line, option in zip(lines, ("--person gone.png", "--upper text.jpg", "--bag ."), strict=True):
        assert line.startswith(f"error: {option}")


@pytest.mark.parametrize(
    "options",
    [
        ["--steps", "0"],
        ["--steps", "201"],
        ["--seed", "-1"],
        ["--guidance", "nan"],
        ["--mask", "most"],
        ["--framing", "round"],
    ],
)
def test_options_out_of_range_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["try-on", "--person", "anna.png", "--upper", "shirt.png", *options])
    assert ended.value.code == ExitCode.USAGE
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "The look has no garment. Give at least one of"),
        (["--upper", "shirt.png", "--output", "x.gif"], "must end in one of .png"),
        (["--upper", "shirt.png", "--output", "nowhere/x.png"], "there is no folder nowhere"),
    ],
)
def test_what_try_on_needs(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["try-on", "--person", "anna.png", *options]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_try_on_makes_the_same_picture_for_the_same_seed(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(pictures / "tiny")
    options = ["--person", str(pictures / "anna.png"), "--upper", str(pictures / "shirt.png"), "--steps", "2"]
    options += ["--bundle", str(pictures / "tiny"), "--device", "cpu"]
    first, second, third = (pictures / name for name in ("1.png", "2.png", "3.webp"))
    assert main(["try-on", *options, "--output", str(first)]) == ExitCode.OK
    printed = capsys.readouterr().out.splitlines()
    seed = printed[0].removeprefix("seed ")
    assert " s on cpu after " in printed[1]
    assert printed[2] == "peak VRAM: none, it ran on the CPU"
    assert main(["try-on", *options, "--seed", seed, "--output", str(second)]) == ExitCode.OK
    assert main(["try-on", *options, "--seed", "1", "--output", str(third)]) == ExitCode.OK
    assert first.read_bytes() == second.read_bytes()
    with Image.open(third) as picture:
        assert picture.format == "WEBP"


def test_a_missing_bundle_is_said_in_words(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    options = ["--person", str(pictures / "anna.png"), "--upper", str(pictures / "shirt.png"), "--device", "cpu"]
    assert main(["try-on", *options, "--models", str(pictures), "--output", str(pictures / "x.png")]) == ExitCode.ENGINE
    assert "fastfit-mr-1024 is not complete. Unset it." in capsys.readouterr().err


def test_a_bare_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.OK
    assert "exit codes:" in capsys.readouterr().out


def test_help_with_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["help", "models", "pull"])
    assert ended.value.code == 0
    assert "example: fastfit-watch models pull" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"fastfit-watch \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["stauts"], "did you mean 'status'?"),
        (["models", "pul"], "did you mean 'pull'?"),
        (["priority", "spring", "urgnt"], "did you mean 'urgent'?"),
        (["xyzzy"], "known: run, try-on"),
    ],
)
def test_a_wrong_word_gets_a_suggestion(words: list[str], advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == ExitCode.USAGE
    assert advice in capsys.readouterr().err.replace("'run', 'try-on'", "run, try-on")


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["--help"], ["doctor"]], ids=" ".join)
def test_a_terminal_without_unicode_gets_plain_characters(command: list[str], inputs: Path) -> None:
    options = [] if command == ["--help"] else ["--inputs", str(inputs)]
    ledger = Ledger(inputs / ".spool" / "ledger.db")
    ledger.find_or_create_unclaimed("frühling…", 3.0)
    ledger.close()
    done = subprocess.run(
        [sys.executable, "-m", "fastfit_watch", *command, *options],
        capture_output=True,
        cwd=inputs.parent,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert done.stdout
