"""Where lines go, that each stays one line, and what the journal gets."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from fastfit_watch.config import Log
from fastfit_watch.logs import JOB_LOG, LOG_FILE, is_journal, one_line, set_up_logs


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    set_up_logs(Log(), tmp_path / "logs", tmp_path / "outputs", stream)
    yield stream
    logger.remove()


def test_a_line_goes_everywhere_it_belongs(tmp_path: Path, terminal: io.StringIO) -> None:
    logger.info("the daemon alone")
    logger.bind(job="spring", look="anna.casual").warning("attempt {} failed", 2)
    logger.debug("not wanted")
    assert "WARNING [spring anna.casual] attempt 2 failed\n" in terminal.getvalue()
    assert (tmp_path / "logs" / LOG_FILE).read_text() == terminal.getvalue()
    assert terminal.getvalue().count("\n") == 2
    job_log = (tmp_path / "outputs" / "spring" / JOB_LOG).read_text()
    assert job_log.count("\n") == 1
    assert "attempt 2 failed" in job_log


def test_names_cannot_break_a_line(terminal: io.StringIO) -> None:
    nasty = "a\nERROR fake\x1b[31m\u202e{extra}\udcff"
    logger.bind(job="x").info("upload {}", nasty)
    line = terminal.getvalue()
    assert line.count("\n") == 1
    assert not set("\x1b\u202e\udcff") & set(line)
    assert r"a\nERROR fake\x1b[31m\u202e{extra}\udcff" in line


def test_one_line_leaves_readable_text_alone() -> None:
    assert one_line("Größe 12 µm, 日本") == "Größe 12 µm, 日本"


def test_a_job_log_that_cannot_be_written_stops_no_one(tmp_path: Path, terminal: io.StringIO) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    logger.bind(job="spring").info("still here")
    assert "still here" in terminal.getvalue()


def test_the_log_file_is_rotated(tmp_path: Path) -> None:
    set_up_logs(Log(rotate_bytes=1000, keep_files=2), tmp_path, tmp_path, io.StringIO())
    for number in range(200):
        logger.info("line {}", number)
    logger.remove()
    assert len(list(tmp_path.glob("fastfit-watch*.log"))) == 3
    assert "line 199" in (tmp_path / LOG_FILE).read_text()


def test_in_the_journal_every_line_has_its_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        facts = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
        set_up_logs(Log(), tmp_path, tmp_path, stream)
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("something went wrong")
        logger.info("going on")
        logger.remove()
        lines = (tmp_path / "journal").read_text().splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines[:-1])
    assert lines[-2] == "<3>ValueError: broken"
    assert lines[-1].startswith("<6>")


def test_a_pipe_is_no_journal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:2"})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
