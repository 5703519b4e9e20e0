"""What metrics ask of the ledger: sums and ages, each one cheap query."""

from __future__ import annotations

from fastfit_watch.domain.job import LookStatus, Status
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.outbox import Outbox


class Numbers(Ledger, Outbox):
    """The ledger and its outbox, for someone who only counts. Open it with `read_only=True`."""

    def oldest(self) -> dict[Status, float]:
        """Return for each unfinished state that occurs, since when (Unix time) the job longest in line is there."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT status, min(coalesce(claimed_s, first_seen_s)) FROM jobs"
                " WHERE status IN ('waiting', 'stalled', 'invalid', 'queued', 'running') GROUP BY status"
            ).fetchall()
        return {Status(status): since_s for status, since_s in rows}

    def looks_in_line(self) -> dict[LookStatus, int]:
        """Return how many looks are queued and running."""
        counts = {}
        with self.reading() as db:
            for status in (LookStatus.QUEUED, LookStatus.RUNNING):
                # One query each: SQLite has a small index for each of these states alone.
                query = f"SELECT count(*) FROM looks WHERE status = '{status.value}'"  # noqa: S608 - our own word
                (counts[status],) = db.execute(query).fetchone()
        return counts
