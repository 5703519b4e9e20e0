"""How the daemon is, as it notes it in the ledger for `status` and for what is published."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

DAEMON_NOTE = "daemon"
"""The key of the note in the ledger."""

_LOST_AFTER_S = 60.0


class DaemonCondition(StrEnum):
    """never: not started here yet. lost: it has stopped giving signs of life without saying that it stops."""

    NEVER = "never"
    RUNNING = "running"
    STOPPED = "stopped"
    LOST = "lost"


@dataclass(frozen=True)
class DaemonState:
    """How the daemon is.

    pid: of its process, heartbeat_s: Unix seconds of its newest sign of life, both None if it never ran. engine: how
    each worker is, for people. watch: how uploads are found, "events" or "polling: " and why.
    """

    state: DaemonCondition
    pid: int | None = None
    heartbeat_s: float | None = None
    engine: str = ""
    watch: str = ""

    @property
    def is_running(self) -> bool:
        """Is it at work?"""
        return self.state is DaemonCondition.RUNNING

    def to_json(self) -> str:
        """Return the text of the note."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None, now_s: float) -> DaemonState:
        """Read a note, of 0.1.0 too. now_s: Unix seconds; one that is too old was left by a daemon that is lost."""
        if not text:
            return cls(DaemonCondition.NEVER)
        fields = json.loads(text)
        heartbeat_s = float(fields.get("heartbeat_s") or 0.0)
        state = DaemonCondition(fields.get("state", DaemonCondition.RUNNING))
        if state is DaemonCondition.RUNNING and now_s - heartbeat_s > _LOST_AFTER_S:
            state = DaemonCondition.LOST
        return cls(state, fields.get("pid"), heartbeat_s, fields.get("engine", ""), fields.get("watch", ""))
