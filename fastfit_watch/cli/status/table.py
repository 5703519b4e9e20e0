"""The table that `status` prints: a line for the daemon, one for the queue, and one for each job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from fastfit_watch.cli.status.overview import JobState, Overview
from fastfit_watch.cli.terminal import Colour, bar, column_widths, pad_to, paint, truncate, wants_colour
from fastfit_watch.domain.daemon_state import DaemonCondition, DaemonState
from fastfit_watch.domain.job import Status
from fastfit_watch.domain.text import duration, one_line

_HEAD = ("JOB", "STATE", "PICTURES", "", "LEFT")
_GAP = "  "
_LEAST_REASON = 12
_LONGEST_NAME = 32
_COLOURS = {
    Status.RUNNING: Colour.BUSY,
    Status.DONE: Colour.GOOD,
    Status.FAILED: Colour.BAD,
    Status.INVALID: Colour.BAD,
    Status.STALLED: Colour.BAD,
    Status.CANCELLED: Colour.FAINT,
}


def draw(overview: Overview, stream: TextIO, columns: int | None, rows: int) -> list[str]:
    """The lines of the table.

    columns: of the terminal; no line is longer, and what is least needed gives way first. None: a pipe, as long as it
    takes. rows: most jobs to list.
    """
    colour = wants_colour(stream)
    lines = [_cut(_daemon_line(overview.daemon, overview.at_s), columns)]
    if overview.paused is not None:
        lines.append(paint(_cut(f"paused: {one_line(overview.paused)}", columns), Colour.BAD, wanted=colour))
    lines.append(_cut(_queue_line(overview), columns))
    if overview.loose.count:
        lines.append(paint(_cut(overview.loose.sentence, columns), Colour.BAD, wanted=colour))
    jobs = overview.jobs[: max(1, rows)]
    if not jobs:
        return lines
    lines += ["", *_job_lines(jobs, stream, columns, colour)]
    older = sum(overview.counts.values()) - len(jobs)
    if older > 0:
        lines.append(paint(_cut(f"({older} more: see --json)", columns), Colour.FAINT, wanted=colour))
    return lines


def _daemon_line(daemon: DaemonState, at_s: float) -> str:
    match daemon.state:
        case DaemonCondition.NEVER:
            return "daemon: never started here"
        case DaemonCondition.LOST:
            return f"daemon: not running (last sign of life {duration(at_s - (daemon.heartbeat_s or 0.0))} ago)"
        case DaemonCondition.STOPPED:
            return "daemon: stopped"
        case DaemonCondition.RUNNING:
            engine, watch = one_line(daemon.engine) or "no engine yet", daemon.watch or "scan"
            return f"daemon: running, {engine}, watching by {watch}"


def _queue_line(overview: Overview) -> str:
    counts = ", ".join(f"{overview.counts[status]} {status.value}" for status in Status if overview.counts.get(status))
    if overview.time_left_s:
        return f"{counts}; about {duration(overview.time_left_s)} left"
    return counts or "no jobs yet"


def _job_lines(jobs: Sequence[JobState], stream: TextIO, columns: int | None, colour: bool) -> list[str]:
    """Head and rows. In a narrow terminal the bar goes first, then the time left, then names are cut."""
    for bar_columns, with_left in ((20, True), (8, True), (0, True), (0, False)):
        rows = [_HEAD, *(_cells(state, bar_columns, stream) for state in jobs)]
        used = [column for column in range(5) if (column != 2 or bar_columns) and (column != 4 or with_left)]
        sizes = column_widths(rows)
        taken = sum(sizes[column] + len(_GAP) for column in used)
        if columns is None or taken + _LEAST_REASON <= columns:
            break
    if columns is not None:
        sizes[0] -= min(max(0, taken - columns), max(0, sizes[0] - 8))
    reasons = ["", *(one_line(state.job.reason) for state in jobs)]
    colours = [Colour.FAINT, *(_COLOURS.get(state.job.status, Colour.PLAIN) for state in jobs)]
    lines = []
    for row, reason, shade in zip(rows, reasons, colours, strict=True):
        # Where there are no pictures to count, the reason has their place: it is all that helps.
        shown = used if any(row[2:]) else used[:2]
        cells = [pad_to(truncate(row[column], sizes[column]), sizes[column]) for column in shown]
        lines.append(_row(cells, reason, shade, columns, colour))
    return lines


def _cells(state: JobState, bar_columns: int, stream: TextIO) -> tuple[str, str, str, str, str]:
    name = truncate(one_line(state.job.id), _LONGEST_NAME)
    if not state.total:
        return name, state.job.status.value, "", "", ""
    left = duration(state.time_left_s) if state.time_left_s is not None else ""
    drawn = bar(state.share, bar_columns, stream)
    return name, state.job.status.value, drawn, f"{state.made}/{state.total}", left


def _row(cells: Sequence[str], reason: str, shade: Colour, columns: int | None, colour: bool) -> str:
    plain = _cut(_GAP.join([*cells, reason]).rstrip(), columns)
    name, state = cells[0] + _GAP, cells[1]
    if not plain.startswith(name + state):
        return plain
    if shade is Colour.FAINT:
        return paint(plain, shade, wanted=colour)
    return name + paint(state, shade, wanted=colour) + plain[len(name + state) :]


def _cut(text: str, columns: int | None) -> str:
    return text if columns is None else truncate(text, columns)
