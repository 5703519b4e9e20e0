"""Where a daemon keeps its things, for commands that need to know nothing else of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOG_FILE = "fastfit-watch.log"
JOB_LOG = "job.log"


@dataclass(frozen=True)
class Paths:
    """The folders of a daemon, with their defaults. Relative paths are relative to the working directory."""

    inputs: Path = Path("inputs")
    outputs: Path = Path("outputs")
    logs: Path = Path("logs")
