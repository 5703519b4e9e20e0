"""`logs`: what is there, what comes, what is rotated away, and when it ends."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastfit_watch.cli.log_view import GrowingFile, show_log
from fastfit_watch.config.paths import JOB_LOG, LOG_FILE, Paths
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import ClaimIntent
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths

PATIENCE_S = 120.0


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A running job `spring` with two lines in its log, and a daemon's log."""
    paths = Paths(tmp_path / "inputs", tmp_path / "outputs", tmp_path / "logs")
    for folder in (SpoolPaths(paths.inputs).root, paths.outputs / "spring", paths.logs):
        folder.mkdir(parents=True)
    ledger = Ledger(SpoolPaths(paths.inputs).ledger)
    ledger.find_or_create_unclaimed("spring", 1.0)
    look = Look("anna.jpg", "casual", {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=7))
    ledger.begin_claim(ClaimIntent("spring", "outfit.yaml", [look], {}, "origin"), 2.0)
    ledger.finish_claim("spring", 2.0)
    ledger.close()
    job_log(paths).write_text(
        "2026-01-01 10:00:00 INFO    [spring] queued\n2026-01-01 10:00:01 WARNING [spring] slow\n"
    )
    (paths.logs / LOG_FILE).write_text("".join(f"2026-01-01 10:00:00 INFO    line {number}\n" for number in range(9)))
    return paths


def job_log(paths: Paths) -> Path:
    return paths.outputs / "spring" / JOB_LOG


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def wait_for(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_the_daemon_s_last_lines(paths: Paths) -> None:
    out = io.StringIO()
    assert show_log(paths, None, lines=2, follow=False, out=out) == 0
    assert [line[-6:] for line in out.getvalue().splitlines()] == ["line 7", "line 8"]


def test_following_a_job_ends_by_itself_once_the_job_is_reported(paths: Paths) -> None:
    out = io.StringIO()
    thread = threading.Thread(target=lambda: show_log(paths, "spring", lines=100, follow=True, out=out))
    thread.start()
    wait_for(lambda: "slow" in out.getvalue())
    add(job_log(paths), "2026-01-01 10:00:02 INFO    [spring anna.casual] half a li")
    add(job_log(paths), "ne\n")
    wait_for(lambda: "half a line\n" in out.getvalue())
    ledger = Ledger(SpoolPaths(paths.inputs).ledger)
    ledger.start_attempt("spring", "anna.casual", 3.0)
    ledger.fail_look("spring", "anna.casual", "no one is in the picture", 4.0)
    ledger.settle_job("spring", 4.0)
    time.sleep(1.2)
    assert thread.is_alive(), "the last line comes with the report"
    add(job_log(paths), "2026-01-01 10:00:03 INFO    [spring] failed\n")
    assert all(ledger.confirm_report(job) for job in ledger.unreported())
    ledger.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert out.getvalue().endswith("[spring] failed\n")


def test_a_log_that_is_not_there_yet_is_waited_for(paths: Paths) -> None:
    job_log(paths).unlink()
    with pytest.raises(ConfigError, match="no log"):
        show_log(paths, "spring", lines=100, follow=False)
    out = io.StringIO()
    thread = threading.Thread(target=lambda: show_log(paths, "spring", lines=100, follow=True, out=out), daemon=True)
    thread.start()
    time.sleep(0.3)
    add(job_log(paths), "at last\n")
    wait_for(lambda: out.getvalue() == "at last\n")


def test_rotation_and_truncation_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\n")
    log = GrowingFile(path)
    assert list(log.read_lines()) == ["one"]
    add(path, "two\n")
    path.rename(tmp_path / "log.1")
    path.write_text("three\n")
    assert list(log.read_lines()) == ["two", "three"]
    path.write_text("")
    assert list(log.read_lines()) == []
    add(path, "four\n")
    assert list(log.read_lines()) == ["four"]
    log.close()


@pytest.mark.parametrize("job", ["nowhere", "../spring", "/etc"])
def test_only_jobs_of_the_ledger_become_paths(paths: Paths, job: str) -> None:
    (paths.outputs / "nowhere").mkdir()
    (paths.outputs / "nowhere" / JOB_LOG).write_text("secret\n")
    with pytest.raises(ConfigError, match="no job"):
        show_log(paths, job, lines=100, follow=False)


def test_colours_are_for_terminals_only(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    add(job_log(paths), "2026-01-01 10:00:02 INFO    [spring] a terminal code \x1b[41m\n")
    coloured, plain, unwanted = Screen(), io.StringIO(), Screen()
    show_log(paths, "spring", lines=9, follow=False, out=coloured)
    show_log(paths, "spring", lines=9, follow=False, out=plain)
    monkeypatch.setenv("NO_COLOR", "1")
    show_log(paths, "spring", lines=9, follow=False, out=unwanted)
    assert "\x1b[33m2026-01-01 10:00:01 WARNING [spring] slow\x1b[0m\n" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue() + unwanted.getvalue()
    assert r"\x1b[41m" in coloured.getvalue()


def test_it_ends_when_nobody_reads_any_more(paths: Paths) -> None:
    command = [sys.executable, "-m", "fastfit_watch", "logs", "--config", "settings.yaml"]
    (paths.logs.parent / "settings.yaml").write_text(f"logs: {paths.logs}\ninputs: {paths.inputs}\n")
    with subprocess.Popen(command, cwd=paths.logs.parent, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"line 0" in os.read(process.stdout.fileno(), 1000)
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 0
