"""The settings that a worker process starts with."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.finishing import Finishing


@dataclass(frozen=True)
class WorkerSettings:
    """One worker process: its engine, and what it does beside making pictures.

    finishing: what is done to every picture. max_rss_bytes: most memory that the process may hold between looks, before
    a fresh one takes over; 0 for no limit.
    """

    engine: EngineSetup
    finishing: Finishing = field(default_factory=Finishing)
    max_rss_bytes: int = 0
