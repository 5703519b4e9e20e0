"""Which rung of the memory ladder worked on each device, kept in the ledger: used from then on, after restarts too.

A note counts for one device, card, bundle and type of numbers; the size of the pictures follows from these. The way
back up: the note is forgotten after a while, when `memory.start` or another of these changes, by `fastfit-watch retry`,
and when a look found too little memory on every rung, for then what was noted did not work either.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.memory_ladder import Rung, ladder
from fastfit_watch.domain.worker_protocol import Ready
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.requests import RUNG_NOTES


@dataclass(frozen=True)
class _Note:
    """What was learnt, for which circumstances, and since when (Unix seconds)."""

    rung: str
    card: str
    bundle: str
    dtype: str
    start: str
    since_s: float


class RungNotes:
    """Reads and writes the notes. Raises StorageError when the disk is full."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def rungs(self, config: Config, ready: Ready | None, device: str, now_s: float) -> tuple[Rung, ...]:
        """The rungs to try for a look on `device`, in this order. `ready` is what its engine said of itself."""
        allowed = ladder(config.memory.start, allow_smaller=config.memory.allow_smaller)
        note = self._read(device)
        if note is None or not 0 <= now_s - note.since_s < config.memory.remember_s:
            return allowed
        if note != _describe(config, ready, Rung(note.rung), note.since_s):
            return allowed
        known = tuple(rung for rung in allowed if rung.reaches(Rung(note.rung)))
        return known or allowed

    def remember(self, config: Config, ready: Ready | None, device: str, rung: Rung, now_s: float) -> None:
        """Begin with this rung from now on."""
        note = _describe(config, ready, rung, now_s)
        self._ledger.put_note(RUNG_NOTES + device, json.dumps(asdict(note)))

    def forget(self, device: str) -> None:
        """Begin at the top again."""
        if self._read(device) is not None:
            self._ledger.put_note(RUNG_NOTES + device, "")

    def _read(self, device: str) -> _Note | None:
        try:
            note = _Note(**json.loads(self._ledger.note(RUNG_NOTES + device) or ""))
            Rung(note.rung)
        except (ValueError, TypeError):  # none, or of another version
            return None
        return note


def _describe(config: Config, ready: Ready | None, rung: Rung, since_s: float) -> _Note:
    card, bundle = (ready.card, ready.bundle) if ready is not None else ("", "")
    return _Note(rung.value, card, bundle, config.engine.dtype, config.memory.start.value, since_s)
