"""The daemon of the soak: started, killed, asked and measured."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import yaml

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import Job
from fastfit_watch.storage.ledger import Ledger

PROGRAM = Path(__file__).parents[1] / "support" / "protocol_daemon.py"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sample:
    """What was measured of one life (pid) of the daemon, `at_s` steady seconds."""

    pid: int
    at_s: float
    values: dict[str, float]


class SoakRun:
    """Folders of one daemon, and the process; it is started again whenever it is gone."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.inputs, self.outputs, self.notes = home / "inputs", home / "outputs", home / "notes"
        for folder in (self.inputs, self.outputs, self.notes):
            folder.mkdir(parents=True)
        settings = {
            **{name: str(home / name) for name in ("inputs", "outputs", "logs", "models")},
            "watch": {"settle_s": 1.0, "scan_s": 0.5, "quiet_scan_s": 5.0, "stalled_after_s": 60.0},
            "limits": {"min_free_bytes": 0},
            "engine": {"devices": ["cpu"], "backoff_s": 0.2, "backoff_max_s": 2.0},
            "retention": {"keep_uploads": "2min", "keep_results": "3min"},
            "log": {"rotate_bytes": 100_000, "keep_files": 3},
        }
        (home / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.samples: list[Sample] = []
        self.engine_kills = self.kills = self.stops = self.reloads = 0
        self._rotated: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The daemon."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start the daemon; its words go to its log alone."""
        with (self.home / "stderr").open("wb") as words:
            command = [sys.executable, str(PROGRAM), str(self.home)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=words)

    def watch_over(self) -> None:
        """A daemon that ended by itself is a fault, not something to hide by a start."""
        if self.process.poll() is not None:
            words = (self.home / "stderr").read_text(encoding="utf-8", errors="replace")[-2000:]
            raise AssertionError(f"the daemon ended by itself with {self.process.returncode}\n{words}")

    def end(self) -> None:
        """End the daemon for good."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        self.process.kill()
        self.process.wait()

    def end_daemon(self, *, gently: bool) -> None:
        """End the daemon as a service manager or as a power cut would, and start it again."""
        if gently:
            self.process.terminate()
            self.process.wait(60)
            self.stops += 1
        else:
            self.process.kill()
            self.process.wait()
            self.kills += 1
        self.start()

    def kill_engine(self) -> None:
        """End the engine process with SIGKILL, whatever it is doing."""
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if any("protocol_worker" in word for word in child.cmdline()):
                    child.kill()
                    self.engine_kills += 1

    def reload(self) -> None:
        """Let the settings be read again."""
        if (self.home / "logs").exists() and self.samples:
            self.process.send_signal(signal.SIGHUP)
            self.reloads += 1

    def command(self, *words: str) -> None:
        """Run one command of the program as its operator would; a refusal in words is an answer too."""
        options = ("--config", str(self.home / "settings.yaml"))
        program = [sys.executable, "-m", "fastfit_watch", *words, *options]
        subprocess.run(program, cwd=ROOT, check=False, capture_output=True, timeout=120)

    def jobs(self) -> list[Job]:
        """Every job in the ledger."""
        with closing(self._ledger()) as ledger:
            return ledger.jobs()

    def job(self, job_id: str) -> Job | None:
        """One job, or None while the ledger or the job is not there yet."""
        try:
            with closing(self._ledger()) as ledger:
                return ledger.job(job_id)
        except ConfigError:
            return None

    def rotations(self) -> int:
        """How many rotated log files were seen."""
        return len(self._rotated)

    def sample(self) -> None:
        """Measure the daemon now."""
        spool = self.inputs / ".spool"
        try:
            daemon = psutil.Process(self.process.pid)
            logs = [path for path in (self.home / "logs").glob("*") if path.name != "fastfit-watch.log"]
            self._rotated |= {path.name for path in logs}
            self.samples.append(
                Sample(
                    self.process.pid,
                    time.monotonic(),
                    {
                        "memory_mb": daemon.memory_info().rss / 1e6,
                        "open_files": daemon.num_fds(),
                        "threads": daemon.num_threads(),
                        "children": len(daemon.children()),
                        "watches": self._watches(),
                        "spool_jobs": _entries(spool / "jobs"),
                        "outputs_jobs": _entries(self.outputs),
                        "inputs_folders": _entries(self.inputs),
                        "log_mb": sum(path.stat().st_size for path in (self.home / "logs").glob("*")) / 1e6,
                        "ledger_bytes": sum(path.stat().st_size for path in spool.glob("ledger.db")),
                        "jobs": len(self.jobs()),
                    },
                )
            )
        except (psutil.Error, OSError, ConfigError):
            return  # it is just being started

    def _watches(self) -> int:
        """Watches of inotify, as the kernel lists them (proc(5), fdinfo)."""
        count = 0
        for path in Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                count += sum(line.startswith("inotify ") for line in path.read_text(encoding="ascii").splitlines())
        return count

    def _ledger(self) -> Ledger:
        return Ledger(self.inputs / ".spool" / "ledger.db", read_only=True)


def _entries(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.is_dir() else 0
