"""Completion: what the program answers, and what real shells make of it at a terminal."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastfit_watch.cli.completion import ASK, FILES, SHELLS, answer, answer_quietly
from fastfit_watch.cli.main import build_parser, main
from fastfit_watch.storage.ledger import Ledger

PATIENCE_S = 120.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a ledger of two jobs, one with a space in its name, and `fastfit-watch` in `bin`."""
    spool = tmp_path / "inputs" / ".spool"
    spool.mkdir(parents=True)
    ledger = Ledger(spool / "ledger.db")
    ledger.find_or_create_unclaimed("spring", 1.0)
    ledger.find_or_create_unclaimed("sprout two", 2.0)
    ledger.find_or_create_unclaimed("bad\nname", 3.0)
    ledger.close()
    program = tmp_path / "bin" / "fastfit-watch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fastfit_watch "$@"\n')
    program.chmod(0o755)
    return tmp_path


def ask(*words: str) -> list[str]:
    return answer(build_parser(), words)


def test_commands_options_and_choices_are_read_off_the_parser() -> None:
    assert {"run", "status", "logs", "completion"} <= set(ask(""))
    assert ask("sta") == ["status"]
    assert ask("status", "--f") == ["--follow"]
    assert ask("completion", "") == list(SHELLS)
    assert ask("try-on", "--mask", "") == ["full", "worn"]


def test_files_are_left_to_the_shell() -> None:
    assert ask("check", "") == [FILES]
    assert ask("status", "--config", "") == [FILES]
    assert ask("try-on", "--person", "an") == [FILES]


def test_jobs_come_from_the_ledger_that_the_line_names(home: Path) -> None:
    inputs = str(home / "inputs")
    assert ask("cancel", "--inputs", inputs, "spr") == ["sprout two", "spring"]
    settings = home / "settings.yaml"
    settings.write_text(f"inputs: {inputs}\n")
    assert ask("logs", "--config", str(settings), "") == ["sprout two", "spring"]
    assert ask("retry", "--inputs", str(home), "") == []


def test_a_shell_s_line_is_no_place_for_complaints(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "bad.yaml").write_text("nonsense: 1\n")
    assert answer_quietly(build_parser(), ["cancel", "--config", str(home / "bad.yaml"), ""]) == []
    assert main([ASK, "sta"]) == 0
    assert capsys.readouterr().out == "status\n"


@pytest.mark.parametrize(
    ("shell", "options"), [("bash", ["--norc", "--noprofile", "-i"]), ("zsh", ["-f", "-i"]), ("fish", ["-N", "-i"])]
)
def test_a_real_shell_completes_at_the_terminal(shell: str, options: list[str], home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = home / "completion"
    script.write_text(subprocess.check_output([home / "bin" / "fastfit-watch", "completion", shell], text=True))
    prepare = "autoload -Uz compinit && compinit -u -d ./dump; " if shell == "zsh" else ""
    terminal = _Terminal([shell, *options], home)
    try:
        terminal.type(f"{prepare}source ./completion; echo rea''dy\n", "ready\r")
        terminal.type("fastfit-watch canc", "canc")
        terminal.type("\t", "el")
        terminal.type("sprin", "sprin")
        terminal.type("\t", "g")
        terminal.type("&& echo do''ne\n", "done\r")
        assert _reason(home, "spring") == "cancelled by request"
    finally:
        terminal.close()


def _reason(home: Path, job: str) -> str:
    ledger = Ledger(home / "inputs" / ".spool" / "ledger.db", read_only=True)
    found = ledger.job(job)
    ledger.close()
    assert found is not None
    return found.reason


class _Terminal:
    """A shell at a pseudo-terminal."""

    def __init__(self, command: list[str], home: Path) -> None:
        environment = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "HOME": str(home), "TERM": "xterm", "PS1": "$ "}
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(home)
            os.execvpe(command[0], command, {**environment, "LANG": "C.UTF-8"})  # noqa: S606

    def type(self, text: str, awaited: str) -> None:
        """Type, and wait for what must appear, and for the silence after it."""
        os.write(self._fd, text.encode())
        said, deadline_s = "", time.monotonic() + PATIENCE_S
        while awaited not in said or select.select([self._fd], [], [], 0.3)[0]:
            assert time.monotonic() < deadline_s, f"{awaited!r} is not in {said!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                said += os.read(self._fd, 65536).decode("utf-8", "replace")
                if "\x1b[c" in said or "\x1b[0c" in said:  # fish asks what terminal this is
                    os.write(self._fd, b"\x1b[?62c")
                    said = ""

    def close(self) -> None:
        os.close(self._fd)
        os.waitpid(self._pid, 0)
