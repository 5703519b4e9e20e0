"""Where a daemon keeps its things, for commands that need to know nothing else of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPOOL = ".spool"
LEDGER = "ledger.db"
LOG_FILE = "fastfit-watch.log"
JOB_LOG = "job.log"


@dataclass(frozen=True)
class Paths:
    """The folders of a daemon, with their defaults. Relative paths are relative to the working directory."""

    inputs: Path = Path("inputs")
    outputs: Path = Path("outputs")
    logs: Path = Path("logs")

    @property
    def spool(self) -> Path:
        """The private spool: on the filesystem of `inputs/`, so that claiming an upload is one rename."""
        return self.inputs / SPOOL

    @property
    def ledger(self) -> Path:
        """The file that says what became of every job."""
        return self.spool / LEDGER
