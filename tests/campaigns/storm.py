"""One box for a campaign: a real daemon with a played engine, jobs to upload, and the invariant that must hold.

Whatever happened, in the end: every uploaded job has exactly one final state with a reason; no picture is missing,
doubled or torn; all outputs are byte-equal to what an unbroken run makes; nothing half-done is left lying about.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import yaml
from PIL import Image

from fastfit_watch.domain.job import Job, LookRecord, Status
from fastfit_watch.storage.ledger import Ledger

PROGRAM = Path(__file__).parents[1] / "support" / "protocol_daemon.py"
FINAL = {Status.DONE, Status.FAILED, Status.INVALID, Status.CANCELLED}
PATIENCE_S = 60.0


class Box:
    """Folders of one daemon. Jobs are named j0, j1, …; job n has `pictures` looks."""

    def __init__(self, root: Path, pictures: int = 2) -> None:
        self.root, self.pictures = root, pictures
        self.inputs, self.outputs, self.notes = root / "inputs", root / "outputs", root / "notes"
        for folder in (self.inputs, self.outputs, self.notes):
            folder.mkdir(parents=True)
        settings = {
            **{name: str(root / name) for name in ("inputs", "outputs", "logs", "models")},
            "watch": {"settle_s": 0.1, "scan_s": 0.1, "quiet_scan_s": 0.3},
            "limits": {"min_free_bytes": 0},
            # Deaths are the campaign's doing, not the looks'.
            "engine": {
                "devices": ["cpu"],
                "backoff_s": 0.05,
                "backoff_max_s": 0.2,
                "max_deaths": 10**6,
                "max_attempts": 10**6,
            },
        }
        (root / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.uploaded: list[str] = []
        self.daemon: subprocess.Popen[bytes] | None = None

    def upload(self, number: int) -> str:
        """Rename a complete job folder in; its pictures depend on the number alone."""
        name = f"j{number}"
        hidden = self.inputs / f".{name}"
        hidden.mkdir()
        colours = hashlib.sha256(name.encode()).digest()
        Image.new("RGB", (48, 64), tuple(colours[:3])).save(hidden / "anna.png")
        Image.new("RGB", (48, 64), tuple(colours[3:6])).save(hidden / "shirt.png")
        looks = {f"look{index}": {"upper": "shirt.png"} for index in range(self.pictures)}
        manifest = {"people": ["anna.png"], "seed": number, "looks": looks}
        (hidden / "outfit.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
        hidden.rename(self.inputs / name)
        self.uploaded.append(name)
        return name

    def start(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start the daemon; what it says is added to `stderr`."""
        with (self.root / "stderr").open("ab") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(self.root), *options],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **environment},
            )
        return self.daemon

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """End the daemon and wait until all its children are gone too."""
        assert self.daemon is not None
        try:
            children = psutil.Process(self.daemon.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal_number)
        self.daemon.wait(PATIENCE_S)
        _, alive = psutil.wait_procs(children, 5)
        for child in alive:
            child.kill()

    def drain(self) -> None:
        """Run a daemon without faults until nothing is left to do."""
        daemon = self.start("--once")
        try:
            code = daemon.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the queue does not drain:\n{self.words()}") from None
        assert code == 0, f"exit code {code}\n{self.words()}"

    def wait_final(self, patience_s: float = PATIENCE_S) -> bool:
        """Wait until every job is final and reported, or patience ends."""
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            if all((self.outputs / name / "report.json").exists() for name in self.uploaded):
                return True
            if self.daemon is not None and self.daemon.poll() is not None:
                return False
            time.sleep(0.05)
        return False

    def words(self) -> str:
        """The daemon's last words."""
        return (self.root / "stderr").read_text(encoding="utf-8", errors="replace")[-3000:]

    def pictures_of(self, name: str) -> dict[str, bytes]:
        """The pictures of a job by file name."""
        return {path.name: path.read_bytes() for path in sorted((self.outputs / name).glob("anna.*.png"))}

    def results(self) -> dict[str, dict[str, bytes]]:
        """The pictures of all jobs."""
        return {name: self.pictures_of(name) for name in self.uploaded}


@dataclass(frozen=True)
class _Records:
    jobs: list[Job]
    looks: Mapping[str, list[LookRecord]]


def violations(box: Box, expected: Mapping[str, Mapping[str, bytes]]) -> list[str]:
    """What of the invariant does not hold, in words; empty if all is well."""
    found = [f"inputs/.spool/ledger.db: {fault}" for fault in _unsound(box)]
    ledger = Ledger(box.inputs / ".spool" / "ledger.db", read_only=True)
    with closing(ledger):
        jobs = ledger.jobs()
        records = _Records(jobs, {job.id: ledger.looks(job.id) for job in jobs})
    for name in box.uploaded:
        found += [f"{name}: {fault}" for fault in _job_faults(box, name, records, expected[name])]
    strangers = {job.name for job in records.jobs} - set(box.uploaded)
    found += [f"{name}: a job that nobody uploaded" for name in sorted(strangers)]
    found += [f"{path.relative_to(box.root)}: left over" for path in box.root.rglob(".tmp-*")]
    index = box.outputs / "index.html"
    if not index.exists() or "</html>" not in index.read_text(encoding="utf-8"):
        found.append("outputs/index.html: missing or torn")
    return found


def _unsound(box: Box) -> list[str]:
    with closing(sqlite3.connect(f"file:{box.inputs}/.spool/ledger.db?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]


def _job_faults(box: Box, name: str, records: _Records, expected: Mapping[str, bytes]) -> list[str]:
    mine = [job for job in records.jobs if job.name == name]
    if len(mine) != 1:
        return [f"{len(mine)} jobs in the ledger"]
    job = mine[0]
    faults = []
    if job.status is not Status.DONE or not job.reason:
        faults.append(f"it is {job.status.value} ({job.reason!r})")
    folder = box.outputs / job.id
    pictures = box.pictures_of(job.id)
    if pictures.keys() != expected.keys():
        faults.append(f"its pictures are {sorted(pictures)}, not {sorted(expected)}")
    faults += [f"{file} differs" for file in pictures.keys() & expected.keys() if pictures[file] != expected[file]]
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        status = (folder / "status.txt").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return [*faults, f"its report: {error}"]
    if report["status"] != job.status.value or not status.startswith(job.status.value):
        faults.append(f"ledger, report and status disagree: {job.status.value}, {report['status']}, {status!r}")
    if len(report["looks"]) != len(expected):
        faults.append(f"its report has {len(report['looks'])} looks")
    for record in records.looks[job.id]:
        picture = pictures.get(record.result.file) if record.result else None
        if record.result is None or picture is None or hashlib.sha256(picture).hexdigest() != record.result.sha256:
            faults.append(f"{record.look.key} is not what the ledger says it is")
    if (box.inputs / name).exists():
        faults.append("its folder is still in inputs/")
    return faults


def unbroken(root: Path, jobs: int, pictures: int = 2) -> dict[str, dict[str, bytes]]:
    """What a run without faults makes of these jobs; fails if even that is not sound."""
    box = Box(root, pictures)
    for number in range(jobs):
        box.upload(number)
    box.drain()
    results = box.results()
    assert not violations(box, results), violations(box, results)
    assert all(len(made) == pictures for made in results.values())
    return results
