"""The only place that sets up loguru: standard error, the daemon's own log file, and one `job.log` for each job.

One line an event, the same parts in the same order: time, level, job, look, message. What an upload brought into a line
(a folder's name, say) cannot break it: whatever is not printable is written as its escape. With `log.format: json` the
daemon's log is JSON Lines, always with the same keys; a job's own log stays text, as people read it.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from fastfit_watch.config.paths import JOB_LOG, LOG_FILE
from fastfit_watch.config.settings import LogSettings
from fastfit_watch.daemon.stream_writer import StreamWriter
from fastfit_watch.domain.text import one_line

if TYPE_CHECKING:
    from loguru import Message, Record

# sd-daemon(3): what the journal understands in front of a line.
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
_TIME = "%Y-%m-%d %H:%M:%S%z"
_FLUSH_S = 2.0  # standard error that nobody reads does not keep the daemon from ending


def set_up_logs(settings: LogSettings, folder: Path, outputs: Path, stderr: TextIO | None = None) -> None:
    """Send the log to standard error, to `folder`/fastfit-watch.log and to each job's job.log. May be called again.

    A log file that cannot be written stops no one: standard error says so once, and has every line itself.
    """
    logger.remove()
    terminal = _terminal_of(stderr or sys.stderr)
    form = _format_json if settings.format == "json" else _format
    logger.add(
        terminal.write,
        level=settings.console_level or settings.level,
        format=form,
        backtrace=False,
        diagnose=False,
    )
    logger.add(
        _LogFile(folder / LOG_FILE, settings, terminal).write,
        level=settings.level,
        format=form,
        backtrace=False,
        diagnose=False,
    )
    logger.add(_JobLogs(outputs).write, level="INFO", format=_format, filter=_has_job, backtrace=False, diagnose=False)


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Does this stream go straight to the journal? systemd names its device and inode in JOURNAL_STREAM."""
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"


def with_priority(level: str, text: str) -> str:
    """Each line of `text` as the journal wants it: led by its priority."""
    return "".join(f"<{_PRIORITIES.get(level, 6)}>{line}\n" for line in text.splitlines())


class _Terminal:
    """Standard error. In the journal every line, of a traceback too, is led by its priority."""

    def __init__(self, stream: TextIO) -> None:
        self._to_journal = is_journal(stream)
        self._writer = StreamWriter(stream, _report_dropped)
        self.flush = self._writer.flush

    def write(self, message: Message) -> None:
        self.say(message.record["level"].name, str(message))

    def say(self, level: str, text: str) -> None:
        """Write lines of one level; `text` ends with a line feed."""
        self._writer.write(with_priority(level, text) if self._to_journal else text)


@lru_cache(maxsize=1)  # one thread for standard error, however often the settings are read
def _terminal_of(stream: TextIO) -> _Terminal:
    terminal = _Terminal(stream)
    atexit.register(terminal.flush, _FLUSH_S)
    return terminal


def flush_logs(stream: TextIO | None = None, timeout_s: float = _FLUSH_S) -> bool:
    """Wait until all that was logged is written to standard error, at most so long; returns whether it is."""
    return _terminal_of(stream or sys.stderr).flush(timeout_s)


def _report_dropped(lines: int) -> None:
    logger.warning("{} lines of the log are missing on standard error: nobody read it", lines)


class _LogFile:
    """The daemon's own log, with `keep_files` older parts: fastfit-watch.1.log is the newest of them.

    Opened for each line: whoever follows the file, moves it away or deletes it is never in the way.
    """

    def __init__(self, path: Path, settings: LogSettings, terminal: _Terminal) -> None:
        self._path, self._settings = path, settings
        self._terminal = terminal
        self._trouble = ""

    def write(self, message: Message) -> None:
        data = str(message).encode("utf-8", "backslashreplace")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size + len(data) > self._settings.rotate_bytes:
                self._rotate()
            with self._path.open("ab") as file:
                file.write(data)
        except OSError as error:
            if self._trouble != (trouble := error.strerror or str(error)):
                self._terminal.say("WARNING", f"the log file {self._path} cannot be written: {trouble}\n")
            self._trouble = trouble
        else:
            self._trouble = ""

    def _rotate(self) -> None:
        parts = {number: part for part in self._path.parent.glob(f"{self._path.stem}.*.log") if (number := _part(part))}
        for number in sorted(parts, reverse=True):
            if number >= self._settings.keep_files:
                parts[number].unlink(missing_ok=True)
            else:
                parts[number].rename(self._part_path(number + 1))
        self._path.rename(self._part_path(1))

    def _part_path(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{number}.log")


def _part(path: Path) -> int:
    """The number in `fastfit-watch.3.log`; 0 for any other name."""
    number = path.name.split(".")[-2]
    return int(number) if number.isdecimal() else 0


class _JobLogs:
    """`outputs/<job>/job.log`, opened for each line: there may be any number of jobs."""

    def __init__(self, outputs: Path) -> None:
        self._outputs = outputs

    def write(self, message: Message) -> None:
        folder = self._outputs / str(message.record["extra"]["job"])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / JOB_LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(str(message))
        except OSError:
            return  # the daemon's own log has the line; a full disk must not stop the one who reports it


def _has_job(record: Record) -> bool:
    return "job" in record["extra"]


def _format(record: Record) -> str:
    """The template of one line; loguru fills it in."""
    place = " ".join(str(record["extra"][key]) for key in ("job", "look") if key in record["extra"])
    parts = (record["time"].strftime(_TIME), f"{record['level'].name:7}", f"[{place}]" if place else "")
    record["extra"]["line"] = one_line(" ".join(part for part in (*parts, record["message"]) if part))
    return "{extra[line]}\n{exception}"


def _format_json(record: Record) -> str:
    """The template of one line of JSON. Job and look are null where a line is about neither."""
    error = record["exception"]
    fields = {
        "time": record["time"].astimezone(UTC).isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "job": record["extra"].get("job"),
        "look": record["extra"].get("look"),
        "message": record["message"],
        "exception": "".join(traceback.format_exception(*error)) if error else None,
    }
    record["extra"]["line"] = json.dumps(fields)
    return "{extra[line]}\n"
