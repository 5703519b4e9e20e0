"""Folders of one daemon, and the daemon itself as a process, with `protocol_worker` in the place of the engine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from fastfit_watch.domain.job import Job, LookRecord
from fastfit_watch.storage.ledger import Ledger

PROGRAM = Path(__file__).with_name("protocol_daemon.py")
PATIENCE_S = 240.0


class DaemonProcess:
    """Folders of one daemon, and the processes started on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inputs, self.outputs, self.notes = root / "inputs", root / "outputs", root / "notes"
        for folder in (self.inputs, self.outputs, self.notes):
            folder.mkdir()
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.configure()

    def configure(self, watch: dict[str, float] | None = None, **engine: Any) -> None:
        engine = {"devices": ["cpu"], "backoff_s": 0.1, "backoff_max_s": 0.5, "stall_s": 30, **engine}
        settings = {
            **{name: str(self.root / name) for name in ("inputs", "outputs", "logs", "models")},
            "watch": watch or {"settle_s": 0.2, "scan_s": 0.2, "quiet_scan_s": 0.5},
            "limits": {"min_free_bytes": 0},
            "engine": engine,
        }
        (self.root / "settings.yaml").write_text(yaml.safe_dump(settings))

    def upload(self, name: str, *looks: str) -> None:
        """One person in these looks, renamed in when complete."""
        hidden = self.inputs / f".{name}"
        hidden.mkdir()
        Image.new("RGB", (48, 64), "navy").save(hidden / "anna.png")
        Image.new("RGB", (48, 64), "red").save(hidden / "shirt.png")
        manifest = {"people": ["anna.png"], "seed": 7, "looks": {look: {"upper": "shirt.png"} for look in looks}}
        (hidden / "outfit.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
        hidden.rename(self.inputs / name)

    def start(
        self,
        *options: str,
        environment: dict[str, str] | None = None,
        through: Sequence[str] = (),
        stderr: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """`through` is a command that starts another one, such as setpriv. stderr: in place of the file `stderr`."""
        command = [*through, sys.executable, str(PROGRAM), str(self.root), *options]
        log = (self.root / "stderr").open("ab")
        with log:
            process = subprocess.Popen(
                command, stderr=log if stderr is None else stderr, env={**os.environ, **(environment or {})}
            )
        self.daemons.append(process)
        return process

    def drain(self) -> int:
        return self.start("--once").wait(PATIENCE_S)

    def close(self) -> None:
        for process in self.daemons:
            process.kill()
            process.wait()

    def job(self, name: str) -> Job | None:
        job: Job | None = self.read(lambda ledger: ledger.job(name))
        return job

    def pictures(self, name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.outputs / name).glob("anna.*.png")}

    def looks(self, name: str) -> dict[str, LookRecord]:
        return {record.look.name: record for record in self.read(lambda ledger: ledger.looks(name)) or []}

    def read(self, ask: Callable[[Ledger], Any]) -> Any:
        path = self.inputs / ".spool" / "ledger.db"
        if not path.exists():
            return None
        ledger = Ledger(path)
        try:
            return ask(ledger)
        finally:
            ledger.close()

    def begun(self) -> list[str]:
        path = self.notes / "begun"
        return path.read_text().split() if path.exists() else []

    def status(self, name: str) -> str:
        path = self.outputs / name / "status.txt"
        return path.read_text() if path.exists() else ""

    def is_final(self, name: str) -> bool:
        job = self.job(name)
        return job is not None and job.status.is_final and (self.outputs / name / "report.json").exists()


def wait_for(what: Callable[[], object], daemon: DaemonProcess) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"waited in vain; the daemon said:\n{(daemon.root / 'stderr').read_text()}")
        time.sleep(0.05)
