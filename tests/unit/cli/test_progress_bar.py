"""How far work is, on a real terminal (a pseudo-terminal) and on a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

PROGRAM = """
from fastfit_watch.bundles.progress import DownloadProgress
from fastfit_watch.cli.progress_bar import DownloadReporter, WorkProgress
with WorkProgress("demo") as progress:
    progress.update(0, None, "waiting")
    progress.update(1, 4, "1 of 4 pictures")
    progress.update(1, 4, "1 of 4 pictures")
    progress.update(4, 4, "4 of 4 pictures")
reporter = DownloadReporter()
reporter.show(DownloadProgress("Weights", 0, 40_000, is_landmark=True))
reporter.show(DownloadProgress("Weights", 10_000, 40_000))
reporter.warn("the hub is slow")
reporter.show(DownloadProgress("Weights", 40_000, 40_000, is_landmark=True))
"""


def test_on_a_pipe_each_change_is_one_plain_line() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = [line.split(" s  ")[-1] for line in done.stderr.splitlines()]
    assert lines == [
        "waiting",
        "1 of 4 pictures",
        "4 of 4 pictures",
        "fetching Weights: 0 %, 0 bytes of 40 kB",
        "warning: the hub is slow",
        "fetching Weights: 100 %, 40 kB of 40 kB",
    ]
    assert "\x1b" not in done.stderr
    assert done.stdout == ""


def test_on_a_terminal_it_is_a_bar_with_a_share() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed: Linux reports that as an error of reading
        pass
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "demo" in text and "100%" in text and "4 of 4 pictures" in text
    assert "warning: the hub is slow" in text
