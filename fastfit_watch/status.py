"""The `status` command: what the daemon is doing, read from the ledger alone."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from fastfit_watch.config import Config
from fastfit_watch.errors import FastFitError
from fastfit_watch.job import Job, LookStatus, Status
from fastfit_watch.ledger import Ledger

_SHOWN = 30  # newest jobs in the table
_FOLLOW_S = 1.0


def show(config: Config, *, as_json: bool = False, follow: bool = False) -> int:
    """Print the state of the daemon and of the newest jobs; with `follow`, again every second until interrupted."""
    path = config.spool / "ledger.db"
    if not path.exists():
        raise FastFitError(
            f"Nothing was ever watched in {config.inputs}: there is no ledger at {path}.",
            hint="Start it with 'fastfit-watch run', or name the folder with --inputs.",
        )
    ledger = Ledger(path, read_only=True)
    try:
        while True:
            text = json.dumps(snapshot(ledger), indent=2) if as_json else table(ledger)
            if follow and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")
            print(text, flush=True)
            if not follow:
                return 0
            time.sleep(_FOLLOW_S)
    except KeyboardInterrupt:
        return 0
    finally:
        ledger.close()


def snapshot(ledger: Ledger) -> dict[str, Any]:
    """Everything `status --json` prints: the daemon's notes, counts by status, and every job with its progress."""
    jobs = ledger.jobs()
    counts = Counter(job.status.value for job in jobs)
    return {
        "paused": ledger.paused(),
        "daemon": _daemon(ledger),
        "counts": dict(counts),
        "jobs": [asdict(job) | {"looks": _look_counts(ledger, job)} for job in jobs],
    }


def table(ledger: Ledger) -> str:
    """The newest jobs as lines: name, state, pictures made, reason."""
    jobs = ledger.jobs()
    counts = Counter(job.status for job in jobs)
    lines = [_daemon_line(ledger)]
    if (paused := ledger.paused()) is not None:
        lines.append(f"paused: {paused}")
    lines.append(", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status]) or "no jobs yet")
    rows = [(job.id, job.status.value, _made(ledger, job), job.reason) for job in jobs[-_SHOWN:]]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines += [
        f"  {name:{widths[0]}}  {state:{widths[1]}}  {made:>{widths[2]}}  {reason}".rstrip()
        for name, state, made, reason in rows
    ]
    if len(jobs) > _SHOWN:
        lines.append(f"  ({len(jobs) - _SHOWN} older jobs: see --json)")
    return "\n".join(lines)


def _look_counts(ledger: Ledger, job: Job) -> dict[str, int]:
    return dict(Counter(record.status.value for record in ledger.looks(job.id)))


def _made(ledger: Ledger, job: Job) -> str:
    looks = ledger.looks(job.id)
    return f"{sum(record.status is LookStatus.DONE for record in looks)}/{len(looks)}" if looks else "-"


def _daemon(ledger: Ledger) -> dict[str, Any]:
    note = ledger.note("daemon")
    return dict(json.loads(note)) if note else {}


def _daemon_line(ledger: Ledger) -> str:
    note = _daemon(ledger)
    if not note:
        return "daemon: never started here"
    if note.get("state") == "stopped":
        return "daemon: stopped"
    age_s = time.time() - float(note.get("heartbeat_s", 0))
    if age_s > 60:
        return f"daemon: not running (last sign of life {age_s:.0f} s ago)"
    return f"daemon: running, {note.get('engine', 'no engine yet')}, watching by {note.get('watch', 'scan')}"
