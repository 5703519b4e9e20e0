"""Where lines go, that each stays one line, and what the journal gets."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

import fastfit_watch
from fastfit_watch.config.paths import JOB_LOG, LOG_FILE
from fastfit_watch.config.settings import LogSettings
from fastfit_watch.daemon.logs import flush_logs, is_journal, set_up_logs
from fastfit_watch.domain.text import one_line

PATIENCE_S = 120.0


class Terminal(io.StringIO):
    """A terminal in memory, whose text is read once all is written."""

    def getvalue(self) -> str:
        assert flush_logs(self, PATIENCE_S)
        return super().getvalue()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    stream = Terminal()
    set_up_logs(LogSettings(), tmp_path / "logs", tmp_path / "outputs", stream)
    yield stream
    logger.remove()


def test_a_line_goes_everywhere_it_belongs(tmp_path: Path, terminal: Terminal) -> None:
    logger.info("the daemon alone")
    logger.bind(job="spring", look="anna.casual").warning("attempt {} failed", 2)
    logger.debug("not wanted")
    assert "WARNING [spring anna.casual] attempt 2 failed\n" in terminal.getvalue()
    assert (tmp_path / "logs" / LOG_FILE).read_text() == terminal.getvalue()
    assert terminal.getvalue().count("\n") == 2
    job_log = (tmp_path / "outputs" / "spring" / JOB_LOG).read_text()
    assert job_log.count("\n") == 1
    assert "attempt 2 failed" in job_log


def test_names_cannot_break_a_line(terminal: Terminal) -> None:
    nasty = "a\nERROR fake\x1b[31m\u202e{extra}\udcff"
    logger.bind(job="x").info("upload {}", nasty)
    line = terminal.getvalue()
    assert line.count("\n") == 1
    assert not set("\x1b\u202e\udcff") & set(line)
    assert r"a\nERROR fake\x1b[31m\u202e{extra}\udcff" in line


def test_one_line_leaves_readable_text_alone() -> None:
    assert one_line("Größe 12 µm, 日本") == "Größe 12 µm, 日本"


def test_a_job_log_that_cannot_be_written_stops_no_one(tmp_path: Path, terminal: Terminal) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    logger.bind(job="spring").info("still here")
    assert "still here" in terminal.getvalue()


def test_the_log_file_is_rotated(tmp_path: Path) -> None:
    set_up_logs(LogSettings(rotate_bytes=1000, keep_files=2), tmp_path, tmp_path, io.StringIO())
    for number in range(200):
        logger.info("line {:03}", number)
    logger.remove()
    parts = [tmp_path / name for name in ("fastfit-watch.2.log", "fastfit-watch.1.log", LOG_FILE)]
    assert sorted(tmp_path.glob("fastfit-watch*.log")) == sorted(parts)
    assert all(part.stat().st_size <= 1000 for part in parts)
    kept = [int(line.split()[-1]) for part in parts for line in part.read_text().splitlines()]
    assert kept == list(range(kept[0], 200)), "the newest lines, in order, without a gap"


def test_fewer_parts_are_kept_once_the_settings_say_so(tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"fastfit-watch.{number}.log").write_text("old")
    (tmp_path / "fastfit-watch.notes.log").write_text("not ours")
    set_up_logs(LogSettings(rotate_bytes=100, keep_files=2), tmp_path, tmp_path, io.StringIO())
    for number in range(3):
        logger.info("a line that is longer than half of the limit of this file, {}", number)
    logger.remove()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {LOG_FILE, "fastfit-watch.1.log", "fastfit-watch.2.log", "fastfit-watch.notes.log"}


def test_whoever_follows_the_log_misses_nothing(tmp_path: Path) -> None:
    """`tail -F`, as README says, through twenty rotations."""
    set_up_logs(LogSettings(rotate_bytes=500, keep_files=3), tmp_path, tmp_path, io.StringIO())
    logger.info("first")
    with (
        (tmp_path / "followed").open("wb") as followed,
        subprocess.Popen(
            ["tail", "-n", "+1", "-F", "-s", "0.02", str(tmp_path / LOG_FILE)],
            stdout=followed,
            stderr=subprocess.DEVNULL,
        ) as tail,
    ):
        for number in range(140):
            logger.info("line {:03}", number)
            _wait_for(f"line {number:03}\n", tmp_path / "followed")
        tail.terminate()
    logger.remove()
    assert (tmp_path / "fastfit-watch.3.log").exists()
    lines = (tmp_path / "followed").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["first", *(f"{number:03}" for number in range(140))]


def test_a_log_file_that_is_moved_away_is_begun_anew(tmp_path: Path, terminal: Terminal) -> None:
    logger.info("before")
    (tmp_path / "logs" / LOG_FILE).rename(tmp_path / "logs" / "archived")
    logger.info("after")
    assert (tmp_path / "logs" / LOG_FILE).read_text().split()[-1] == "after"


def test_a_full_disk_of_logs_is_said_once_and_stops_no_one(tmp_path: Path) -> None:
    stream = Terminal()
    set_up_logs(LogSettings(), Path("/dev/full"), tmp_path, stream)
    logger.info("one")
    logger.info("two")
    logger.remove()
    said = stream.getvalue().splitlines()
    assert len(said) == 3
    assert sum("cannot be written" in line for line in said) == 1
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / LOG_FILE).symlink_to("/dev/full")
    set_up_logs(LogSettings(), tmp_path / "logs", tmp_path, stream)
    logger.info("three")
    logger.remove()
    assert "No space left on device" in stream.getvalue()


def test_standard_error_may_have_a_level_of_its_own(tmp_path: Path) -> None:
    stream = Terminal()
    set_up_logs(LogSettings(console_level="ERROR"), tmp_path, tmp_path, stream)
    logger.info("quiet")
    logger.error("loud")
    logger.remove()
    assert stream.getvalue().count("\n") == 1
    assert (tmp_path / LOG_FILE).read_text().count("\n") == 2


def test_in_the_journal_every_line_has_its_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        facts = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
        set_up_logs(LogSettings(), tmp_path, tmp_path, stream)
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("something went wrong")
        logger.info("going on")
        logger.remove()
        assert flush_logs(stream, PATIENCE_S)
        lines = (tmp_path / "journal").read_text().splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines[:-1])
    assert lines[-2] == "<3>ValueError: broken"
    assert lines[-1].startswith("<6>")


def test_standard_error_that_nobody_reads_makes_no_one_wait(tmp_path: Path) -> None:
    """As with Ctrl-S in a terminal: lines wait, then they are dropped and counted; the log file has every one."""
    reading, writing = os.pipe()
    total = 10_000
    with os.fdopen(reading) as pipe, os.fdopen(writing, "w") as stream:
        set_up_logs(LogSettings(), tmp_path, tmp_path, stream)
        logging = threading.Thread(
            target=lambda: [logger.info("line {:06} {}", number, "x" * 100) for number in range(total)], daemon=True
        )
        logging.start()
        logging.join(PATIENCE_S)
        assert not logging.is_alive(), "it waits for a reader"
        assert not flush_logs(stream, 0.0)
        assert (tmp_path / LOG_FILE).read_text().count(" line ") == total
        lines: list[str] = []
        while not lines or "missing" not in lines[-1]:
            lines.append(pipe.readline())
        logger.remove()
    dropped = total - (len(lines) - 1)
    assert dropped > 0
    assert f"{dropped} lines of the log are missing on standard error" in lines[-1]
    assert [int(line.split()[4]) for line in lines[:-1]] == list(range(len(lines) - 1)), "in order, the newest dropped"


def test_a_pipe_is_no_journal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:2"})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_json_lines_have_the_same_keys_always(tmp_path: Path) -> None:
    stream = Terminal()
    set_up_logs(LogSettings(format="json"), tmp_path / "logs", tmp_path / "outputs", stream)
    logger.info("the daemon alone, with {extra} and a\nbreak")
    logger.bind(job="spring", look="anna.casual").warning("attempt {} failed", 2)
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("something went wrong")
    logger.remove()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 3
    assert all(list(line) == ["time", "level", "job", "look", "message", "exception"] for line in lines)
    assert (lines[0]["job"], lines[0]["message"]) == (None, "the daemon alone, with {extra} and a\nbreak")
    assert (lines[1]["job"], lines[1]["look"], lines[1]["level"]) == ("spring", "anna.casual", "WARNING")
    assert "ValueError: broken" in lines[2]["exception"]
    assert (tmp_path / "logs" / LOG_FILE).read_text() == stream.getvalue()
    assert "WARNING [spring anna.casual]" in (tmp_path / "outputs" / "spring" / JOB_LOG).read_text()


def test_a_line_about_a_job_has_it_as_its_key() -> None:
    """Said in the words of the message alone, it would be missing from the job's log and from a search for the job."""
    unbound = []
    for path in Path(fastfit_watch.__file__).parent.rglob("*.py"):
        if path.name == "retention.py":  # a line in job.log would make the folder again that it has just removed
            continue
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                words = {ast.unparse(argument) for argument in call.args}
                if ast.unparse(call.func.value) == "logger" and words & {"job.id", "record.job_id", "letter.job_id"}:
                    unbound.append(f"{path.name}:{call.lineno}")
    assert unbound == []


def _wait_for(text: str, path: Path) -> None:
    deadline_s = time.monotonic() + 120
    while not path.read_text().endswith(text):
        assert time.monotonic() < deadline_s, f"{text!r} was never seen"
        time.sleep(0.005)
