"""The `logs` command: a job's log, or the daemon's own, and what is added to it."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fastfit_watch.cli.terminal import Colour, paint, reader_has_gone, wants_colour
from fastfit_watch.config.paths import JOB_LOG, LOG_FILE, Paths
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.text import one_line
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths

_POLL_S = 0.5
_CHUNK_BYTES = 64 * 1024
_LEVEL = re.compile(r"^\S+ \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_COLOURS = {"DEBUG": Colour.FAINT, "WARNING": Colour.BUSY, "ERROR": Colour.BAD, "CRITICAL": Colour.BAD}


def show_log(paths: Paths, job: str | None, *, lines: int, follow: bool, out: TextIO | None = None) -> int:
    """Print the last `lines` of a job's log, or of the daemon's (None), and go on with what is added.

    Following a job ends by itself once the job is done, failed or cancelled and all is printed; any following ends
    with Ctrl-C, and when nobody reads any more.

    Raises ConfigError if there is no such job or no log.
    """
    stream = out or sys.stdout
    path = paths.logs / LOG_FILE if job is None else paths.outputs / job / JOB_LOG
    if job is not None:
        _require_job(paths, job)
    if not path.exists() and not (follow and job is not None):
        raise ConfigError(f"There is no log at {path}.", hint="Start the daemon, or name its folders with --config.")
    colour = wants_colour(stream)
    log = GrowingFile(path)
    for line in deque(log.read_lines(), maxlen=lines):
        print(_shade(line, colour), file=stream)
    stream.flush()
    try:
        while follow:
            ended = job is not None and _is_over(paths, job)
            for line in log.read_lines():
                print(_shade(line, colour), file=stream)
            stream.flush()
            if ended or reader_has_gone(stream, _POLL_S):
                break
    except KeyboardInterrupt:
        pass
    finally:
        log.close()
    return 0


class GrowingFile:
    """A text file that is appended to, and may be cut short, or replaced by a new one of its name (rotated)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._rest = b""

    def read_lines(self) -> Iterator[str]:
        """Every whole line that was added since the last call; none while there is no file."""
        yield from self._read_open()
        if self._is_replaced():
            self.close()
            yield from self._read_open()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._rest = None, b""

    def _read_open(self) -> Iterator[str]:
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
        if os.fstat(self._file).st_size < os.lseek(self._file, 0, os.SEEK_CUR):
            os.lseek(self._file, 0, os.SEEK_SET)
            self._rest = b""
        while chunk := os.read(self._file, _CHUNK_BYTES):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "backslashreplace")

    def _is_replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False


def _require_job(paths: Paths, job: str) -> None:
    """Only what the ledger knows may become part of a path."""
    path = SpoolPaths(paths.inputs).ledger
    if not path.exists():
        raise ConfigError(f"There is no ledger at {path}.", hint="Name the folder with --inputs.")
    ledger = Ledger(path, read_only=True)
    try:
        if ledger.job(job) is None:
            raise ConfigError(f"There is no job {job!r}.", hint="See 'fastfit-watch status' for the known jobs.")
    finally:
        ledger.close()


def _is_over(paths: Paths, job: str) -> bool:
    """Is the job final, and reported?"""
    ledger = Ledger(SpoolPaths(paths.inputs).ledger, read_only=True)
    try:
        found = ledger.job(job)
        return found is None or (found.status.is_final and found not in ledger.unreported())
    finally:
        ledger.close()


def _shade(line: str, colour: bool) -> str:
    level = _LEVEL.match(line)
    return paint(one_line(line), _COLOURS.get(level.group(1), Colour.PLAIN) if level else Colour.PLAIN, wanted=colour)
