"""Shows how far work is: a bar with the time left on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from fastfit_watch.bundles.progress import DownloadProgress
from fastfit_watch.domain.text import gigabytes

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_EVERY_S = 30.0


class WorkProgress:
    """Counts finished parts of a piece of work, on standard error. Used as a context manager.

    On a terminal it is a bar that rich draws, with the time left as its recent speed gives it. Elsewhere each change
    of `note` is a line, and a change of the count alone is one at most every 30 seconds.
    """

    def __init__(self, title: str, total: int | None = None) -> None:
        self._title, self._total = title, total
        self._bar: Progress | None = None
        self._began_s = self._printed_s = time.monotonic()
        self._shown = ""

    def __enter__(self) -> WorkProgress:
        if sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None, note: str) -> None:
        """Show that `done` of `total` parts are finished. total: None while it is not known."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
            return
        now_s = time.monotonic()
        if note != self._shown or now_s - self._printed_s >= _LINE_EVERY_S:
            print(f"{now_s - self._began_s:5.0f} s  {note}", file=sys.stderr, flush=True)
            self._shown, self._printed_s = note, now_s


class DownloadReporter:
    """Shows a download on standard error: a bar on a terminal, and a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def say(self, text: str) -> None:
        """Print a line."""
        self._end_bar()
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Print a line that nobody should miss."""
        self.say(f"warning: {text}")

    def show(self, progress: DownloadProgress) -> None:
        """Draw the bar again, or print a line if it is time."""
        amount = f"{gigabytes(progress.done_bytes)} of {gigabytes(progress.total_bytes)}"
        if not sys.stderr.isatty():
            if progress.is_landmark:
                self.say(f"{progress}, {amount}")
            return
        if self._bar is None:
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task(f"fetching {progress.title}", note="")
        note = f"{amount} {progress.note}".rstrip()
        self._bar.update(self._task, completed=progress.done_bytes, total=progress.total_bytes, note=note)
        if progress.done_bytes >= progress.total_bytes:
            self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _make_bar() -> Progress:
    # rich takes 0.1 s to import: it is loaded where a bar is drawn, and nowhere else.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
    )
