"""The `status` command: what the daemon is doing. Works while it runs, and when it does not.

`docs/status.schema.json` describes what `--json` prints.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from typing import TextIO

from fastfit_watch.cli.status.overview import Overview, as_data, take_overview
from fastfit_watch.cli.status.table import draw
from fastfit_watch.cli.terminal import reader_has_gone
from fastfit_watch.config.paths import Paths
from fastfit_watch.domain.errors import FastFitError
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths

_SHOWN = 30  # jobs in the table, unless a terminal has rows for more or fewer
_FRAME_ROWS = 7  # lines of the table that are no jobs
_FOLLOW_S = 1.0
_TOP, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


def show(paths: Paths, *, as_json: bool = False, follow: bool = False, out: TextIO | None = None) -> int:
    """Print the state of the daemon and of the jobs; with `follow`, again at every change until it is interrupted.

    Raises FastFitError if nothing was ever watched here.
    """
    stream = out or sys.stdout
    path = SpoolPaths(paths.inputs).ledger
    if not path.exists():
        raise FastFitError(
            f"Nothing was ever watched in {paths.inputs}: there is no ledger at {path}.",
            hint="Start it with 'fastfit-watch run', or name the folder with --inputs.",
        )
    ledger = Ledger(path, read_only=True)
    try:
        if follow:
            _follow(ledger, paths, stream, as_json=as_json)
        elif as_json:
            print(json.dumps(as_data(take_overview(ledger, paths, time.time())), indent=2), file=stream)
        else:
            columns = shutil.get_terminal_size().columns if stream.isatty() else None
            overview = take_overview(ledger, paths, time.time(), limit=_SHOWN)
            print("\n".join(draw(overview, stream, columns, _SHOWN)), file=stream)
    except KeyboardInterrupt:
        pass
    finally:
        ledger.close()
    return 0


def _follow(ledger: Ledger, paths: Paths, stream: TextIO, *, as_json: bool) -> None:
    """On a terminal, draw over the last drawing every second. Elsewhere print what has changed, until nobody reads."""
    shown: Overview | None = None
    while not reader_has_gone(stream, 0.0 if shown is None else _FOLLOW_S):
        is_screen = stream.isatty() and not as_json
        columns, rows = shutil.get_terminal_size()
        rows_shown = max(1, rows - _FRAME_ROWS) if is_screen else _SHOWN
        overview = take_overview(ledger, paths, time.time(), limit=None if as_json else rows_shown)
        if is_screen:
            lines = draw(overview, stream, columns, rows_shown)[: rows - 1]
            stream.write(_TOP + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_REST)
        elif shown is None or replace(overview, at_s=0.0) != replace(shown, at_s=0.0):
            text = (
                json.dumps(as_data(overview)) if as_json else "\n".join([*draw(overview, stream, None, rows_shown), ""])
            )
            stream.write(f"{text}\n")
        stream.flush()
        shown = overview
