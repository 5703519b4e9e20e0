"""The only place that sets up loguru: standard error, the daemon's own log file, and one `job.log` for each job.

One line an event, the same parts in the same order: time, level, job, look, message. What an upload brought into a line
(a folder's name, say) cannot break it: whatever is not printable is written as its escape.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from fastfit_watch.config import Log

if TYPE_CHECKING:
    from loguru import Message, Record

LOG_FILE = "fastfit-watch.log"
JOB_LOG = "job.log"
# sd-daemon(3): what the journal understands in front of a line.
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
_TIME = "%Y-%m-%d %H:%M:%S"


def set_up_logs(settings: Log, folder: Path, outputs: Path, stderr: TextIO | None = None) -> None:
    """Send the log to standard error, to `folder`/fastfit-watch.log and to each job's job.log. May be called again.

    Raises OSError if the log file cannot be made.
    """
    logger.remove()
    target = stderr or sys.stderr
    logger.add(
        _Terminal(target, to_journal=is_journal(target)).write,
        level=settings.level,
        format=_format,
        backtrace=False,
        diagnose=False,
    )
    logger.add(
        folder / LOG_FILE,
        level=settings.level,
        format=_format,
        rotation=settings.rotate_bytes,
        retention=settings.keep_files,
        encoding="utf-8",
        errors="backslashreplace",
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


def one_line(text: str) -> str:
    """`text` with everything that is not printable escaped: line breaks, terminal codes, direction marks."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class _Terminal:
    """Standard error. In the journal every line, of a traceback too, is led by its priority."""

    def __init__(self, stream: TextIO, *, to_journal: bool) -> None:
        self._stream, self._to_journal = stream, to_journal

    def write(self, message: Message) -> None:
        text = str(message)
        if self._to_journal:
            priority = _PRIORITIES.get(message.record["level"].name, 6)
            text = "".join(f"<{priority}>{line}\n" for line in text.splitlines())
        self._stream.write(text)
        self._stream.flush()


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
