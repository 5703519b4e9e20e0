"""Drop many small jobs at once on a real daemon, and print what it costs: time, memory, `status`, idle CPU, waiting.

    python tests/campaigns/load.py --jobs 10000 --folder /somewhere/with/room

The engine process is played (`protocol_worker`): a picture takes a fixed time, so that what is measured is the daemon.
Ends with 1, naming it, if a limit is missed: see `Limits`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from PIL import Image

from fastfit_watch.domain.job import Job, Status
from fastfit_watch.storage.ledger import Ledger

PROGRAM = Path(__file__).parents[1] / "support" / "protocol_daemon.py"
ROOT = Path(__file__).parents[2]
# protocol_worker takes 0.7 s for a look of this name.
LOOK = "slow"
PATIENCE = 5
CALM_S, CALM_PATIENCE_S = 30.0, 900.0


@dataclass(frozen=True)
class Limits:
    """What may not be exceeded."""

    accept_s: float = 60.0
    memory_mb: float = 150.0
    status_s: float = 0.5
    idle_percent: float = 1.0
    looks_before: int = 2


class Load:
    """One daemon in `home`, and what is asked of it."""

    def __init__(self, home: Path, jobs: int) -> None:
        self.home, self.jobs = home, jobs
        self.inputs, self.outputs, self.notes = home / "inputs", home / "outputs", home / "notes"
        for folder in (self.inputs, self.outputs, self.notes):
            folder.mkdir(parents=True)
        settings = {
            **{name: str(home / name) for name in ("inputs", "outputs", "logs", "models")},
            "limits": {"min_free_bytes": 0},
            "engine": {"devices": ["cpu"]},
        }
        (home / "settings.yaml").write_text(json.dumps(settings), encoding="utf-8")
        self.memory_mb = 0.0
        self.failures: list[str] = []

    def start(self) -> None:
        """Start the daemon, and wait until its engine is ready."""
        with (self.home / "daemon.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, str(PROGRAM), str(self.home)], stderr=log)
        self.daemon = psutil.Process(process.pid)
        self.process = process
        self.wait(lambda: "ready" in (self.note("daemon") or ""), 60)

    def stop(self) -> None:
        """End the daemon as a service manager does."""
        self.process.terminate()
        self.process.wait(60)

    def prepare(self, folder: Path, number: int) -> None:
        """One upload: a person, a garment, one look."""
        folder.mkdir(parents=True)
        picture = io.BytesIO()
        colour = (number % 251, number // 251 % 251, 99)
        Image.new("RGB", (96, 128), colour).save(picture, "JPEG")
        (folder / "anna.jpg").write_bytes(picture.getvalue())
        (folder / "shirt.jpg").write_bytes(picture.getvalue())
        (folder / "outfit.yaml").write_text(
            f"people: [anna.jpg]\nseed: {number}\nlooks:\n  {LOOK}: {{upper: shirt.jpg}}\n", encoding="utf-8"
        )

    def wait(self, condition: Callable[[], bool], patience_s: float) -> bool:
        """Wait for a condition, and note the daemon's memory meanwhile."""
        deadline_s = time.monotonic() + patience_s
        while not condition():
            self.memory_mb = max(self.memory_mb, self.daemon.memory_info().rss / 1e6)
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.2)
        return True

    def claimed(self) -> int:
        """How many jobs were accepted."""
        done = (Status.QUEUED, Status.RUNNING, Status.DONE)
        return sum(self.count(status) for status in done)

    def count(self, status: Status) -> int:
        """How many jobs have this state."""
        with (
            closing(Ledger(self.inputs / ".spool" / "ledger.db", read_only=True)) as ledger,
            ledger.database.reading() as db,
        ):
            (found,) = db.execute("SELECT count(*) FROM jobs WHERE status = ?", (status,)).fetchone()
            return int(found)

    def note(self, key: str) -> str | None:
        """One note of the daemon."""
        path = self.inputs / ".spool" / "ledger.db"
        if not path.exists():
            return None
        with closing(Ledger(path, read_only=True)) as ledger:
            return ledger.note(key)

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with closing(Ledger(self.inputs / ".spool" / "ledger.db", read_only=True)) as ledger:
            return ledger.job(job_id)

    def command(self, *words: str) -> float:
        """Run one command of the program; returns its seconds."""
        began_s = time.perf_counter()
        options = ("--config", str(self.home / "settings.yaml"))
        program = [sys.executable, "-m", "fastfit_watch", *words, *options]
        subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began_s

    def judge(self, what: str, value: float, limit: float, unit: str) -> None:
        """Print one figure, and remember it if it is too large."""
        verdict = "ok" if value <= limit else "TOO MUCH"
        print(f"{what:58} {value:9.2f} {unit:6} (limit {limit:g}) {verdict}", flush=True)
        if value > limit:
            self.failures.append(what)


def drop(load: Load) -> None:
    """All jobs at once, accepted and whole."""
    staged = load.inputs / ".staged"
    for number in range(load.jobs):
        load.prepare(staged / f"j{number:05}", number)
    load.command("pause")
    began_s = time.monotonic()
    for folder in sorted(staged.iterdir()):
        folder.rename(load.inputs / folder.name)
    dropped_s = time.monotonic() - began_s
    cpu_before_s = sum(load.daemon.cpu_times()[:2])
    load.wait(lambda: load.claimed() >= load.jobs, Limits.accept_s * PATIENCE)
    accepted_s = time.monotonic() - began_s
    print(
        f"{load.jobs} jobs dropped within {dropped_s:.1f} s; CPU of the daemon until all were accepted: "
        f"{sum(load.daemon.cpu_times()[:2]) - cpu_before_s:.1f} s"
    )
    load.judge("all accepted after", accepted_s, Limits.accept_s, "s")
    load.judge("jobs lost", load.jobs - load.claimed() + torn(load), 0, "jobs")


def torn(load: Load) -> int:
    """Jobs whose copies in the spool are not the files that were uploaded."""
    wrong = 0
    for number in range(load.jobs):
        snapshot = load.inputs / ".spool" / "jobs" / f"j{number:05}" / "snapshot"
        text = (snapshot / "outfit.yaml").read_text(encoding="utf-8") if snapshot.is_dir() else ""
        wrong += f"seed: {number}\n" not in text or len(list(snapshot.iterdir())) != 3
    return wrong


def rest(load: Load, idle_s: float) -> None:
    """What a full queue costs while nothing happens."""
    load.judge("fastfit-watch status", min(load.command("status") for _ in range(3)), Limits.status_s, "s")
    print(f"the last status lines and pages were written {calm_down(load):.0f} s later")
    before_s, began_s = sum(load.daemon.cpu_times()[:2]), time.monotonic()
    load.wait(lambda: time.monotonic() - began_s >= idle_s, idle_s + 10)
    percent = 100 * (sum(load.daemon.cpu_times()[:2]) - before_s) / (time.monotonic() - began_s)
    load.judge(f"CPU of the daemon at rest, over {idle_s:.0f} s", percent, Limits.idle_percent, "%")
    load.judge("largest memory of the daemon", load.memory_mb, Limits.memory_mb, "MB")


def calm_down(load: Load) -> float:
    """Wait until the daemon has told everyone how things are, and writes no page any more; returns the seconds."""
    began_s = time.monotonic()
    while time.time() - newest_s(load.outputs) < CALM_S and time.monotonic() - began_s < CALM_PATIENCE_S:
        time.sleep(5)
    return time.monotonic() - began_s


def newest_s(folder: Path) -> float:
    """When the newest file below a folder was written, Unix seconds."""
    newest = 0.0
    for where, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # a page that is just being replaced
                newest = max(newest, os.stat(os.path.join(where, name)).st_mtime)  # noqa: PTH116, PTH118 - many
    return newest


def come_late(load: Load) -> None:
    """One more job with a single picture does not wait for all the others."""
    load.command("resume")
    begun = load.notes / "begun"
    load.wait(lambda: begun.exists() and len(begun.read_text().split()) >= 5, 60)
    hidden = load.inputs / ".late"
    load.prepare(hidden, 1)
    before = len(begun.read_text().split())
    hidden.rename(load.inputs / "late")
    load.wait(lambda: any(line.startswith("late/") for line in begun.read_text().split()), 60)
    looks = begun.read_text().split()
    place = next((number for number, line in enumerate(looks) if line.startswith("late/")), len(looks))
    load.judge("looks begun between its upload and its own", place - before, Limits.looks_before, "looks")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and tell whether every limit holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--idle-s", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to work")
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="load-", dir=chosen.folder))
    print(
        f"{platform.node()}: {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    load = Load(home, chosen.jobs)
    load.start()
    try:
        drop(load)
        rest(load, chosen.idle_s)
        come_late(load)
    finally:
        load.stop()
    shutil.rmtree(home)
    print("missed: " + ", ".join(load.failures) if load.failures else "every limit holds")
    return 1 if load.failures else 0


if __name__ == "__main__":
    sys.exit(main())
