"""A transactional outbox: notifications in the ledger's file. None is lost at a crash; each is sent at least once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection, Row

from fastfit_watch.storage.database import Database

WEBHOOK = "webhook"
HOOK = "hook"


@dataclass(frozen=True)
class Notification:
    """One notification. channel: `webhook` or `hook`. event: `job.done` and the like. body: JSON. id: never used again.

    serial: 0 until it is in the ledger; notifications of a job are sent in its order. since_s: Unix time from which the
    time allowed for delivery counts.
    """

    channel: str
    id: str
    job_id: str
    event: str
    body: str
    since_s: float
    serial: int = 0
    attempts: int = 0


@dataclass(frozen=True)
class DeliveredNotification:
    """A notification and its outcome. ended_s: Unix time, None while it is still to be sent. outcome: in words."""

    notification: Notification
    ended_s: float | None
    outcome: str


def add_notifications(db: Connection, notifications: Iterable[Notification]) -> None:
    """Put notifications into the outbox, inside the caller's transaction."""
    db.executemany(
        "INSERT INTO letters (channel, id, job_id, event, body, since_s) VALUES (?, ?, ?, ?, ?, ?)",
        [(each.channel, each.id, each.job_id, each.event, each.body, each.since_s) for each in notifications],
    )


class Outbox:
    """Reads and writes notifications. `ledger.outbox`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def post(self, notifications: Iterable[Notification]) -> None:
        """Put notifications into the outbox."""
        with self._database.writing("post") as db:
            add_notifications(db, notifications)

    def next_notification(self, channel: str, now_s: float, longest_pause_s: float) -> Notification | None:
        """Return the oldest notification that is due, and has no older one of its job before it.

        longest_pause_s: one that seems to wait for longer is due: the clock was set back.
        """
        query = (
            "SELECT * FROM letters AS this WHERE channel = ? AND ended_s IS NULL"
            " AND NOT (not_before_s > ? AND not_before_s <= ?) AND NOT EXISTS (SELECT 1 FROM letters AS older"
            " WHERE older.channel = this.channel AND older.job_id = this.job_id AND older.ended_s IS NULL"
            " AND older.serial < this.serial) ORDER BY serial LIMIT 1"
        )
        with self._database.reading() as db:
            row = db.execute(query, (channel, now_s, now_s + longest_pause_s)).fetchone()
        return _notification_of(row) if row is not None else None

    def end(self, notification: Notification, outcome: str, now_s: float) -> None:
        """Record that a notification was delivered, or is given up."""
        with self._database.writing("end_letter") as db:
            values = (now_s, outcome, notification.serial)
            db.execute("UPDATE letters SET attempts = attempts + 1, ended_s = ?, outcome = ? WHERE serial = ?", values)

    def put_off(self, notification: Notification, outcome: str, not_before_s: float) -> None:
        """Record that a notification could not be delivered; it is not tried before this moment."""
        with self._database.writing("put_off_letter") as db:
            values = (not_before_s, outcome, notification.serial)
            db.execute(
                "UPDATE letters SET attempts = attempts + 1, not_before_s = ?, outcome = ? WHERE serial = ?", values
            )

    def replay(self, channel: str, job_id: str, now_s: float) -> int:
        """Send all notifications of a job again, in their order; returns how many."""
        with self._database.writing("replay_letters") as db:
            return db.execute(
                "UPDATE letters SET ended_s = NULL, not_before_s = 0, attempts = 0, since_s = ?,"
                " outcome = 'to be sent again' WHERE channel = ? AND job_id = ?",
                (now_s, channel, job_id),
            ).rowcount

    def pending(self) -> dict[str, tuple[int, float]]:
        """Return for each channel how many notifications are still to be sent, and since when the oldest."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT channel, count(*), min(since_s) FROM letters WHERE ended_s IS NULL GROUP BY channel"
            ).fetchall()
        return {channel: (count, since_s) for channel, count, since_s in rows}

    def posted(self, channel: str, limit: int) -> list[DeliveredNotification]:
        """Return the newest notifications, the oldest of them first."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT * FROM letters WHERE channel = ? ORDER BY serial DESC LIMIT ?", (channel, limit)
            ).fetchall()
        return [DeliveredNotification(_notification_of(row), row["ended_s"], row["outcome"]) for row in reversed(rows)]

    def forget(self, channel: str, before_s: float) -> None:
        """Delete notifications that ended before this moment."""
        with self._database.writing("forget_letters") as db:
            db.execute("DELETE FROM letters WHERE channel = ? AND ended_s < ?", (channel, before_s))


def _notification_of(row: Row) -> Notification:
    return Notification(
        channel=row["channel"],
        id=row["id"],
        job_id=row["job_id"],
        event=row["event"],
        body=row["body"],
        since_s=row["since_s"],
        serial=row["serial"],
        attempts=row["attempts"],
    )
