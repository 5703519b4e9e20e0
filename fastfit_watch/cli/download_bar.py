"""Shows how far a download is, on a terminal and elsewhere."""

from __future__ import annotations

import sys

from fastfit_watch.bundles.progress import DownloadProgress
from fastfit_watch.cli.terminal import bar
from fastfit_watch.domain.text import gigabytes

_BAR_COLUMNS = 24


class TerminalProgress:
    """Tells a person at a terminal with a bar, and a log file with a line now and then. All of it on standard error."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar = ""

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
        if not self._is_terminal:
            if progress.is_landmark:
                self.say(f"{progress}, {amount}")
            return
        text = f"{bar(progress.share, _BAR_COLUMNS, sys.stderr)} {progress}, {amount}"
        print(f"\r{text}{' ' * (len(self._bar) - len(text))}", end="", file=sys.stderr, flush=True)
        self._bar = text

    def _end_bar(self) -> None:
        if self._bar:
            print(file=sys.stderr)
            self._bar = ""
