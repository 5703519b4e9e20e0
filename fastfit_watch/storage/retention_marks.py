"""Marks which files of finished jobs may be deleted. The ledger keeps the job itself for ever.

A job's upload and its results are `kept`, then `leaving`, then `gone`. `leaving` is durable before the first file is
removed: from then on nothing relies on them, and the next start goes on where this one was cut short.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from fastfit_watch.domain.job import Job
from fastfit_watch.storage.database import Database
from fastfit_watch.storage.rows import read_job

Kept = Literal["upload", "results"]


class RetentionMarks:
    """Reads and writes what retention needs. `ledger.retention`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin_keeping(self, calendar_s: float, limit: int) -> int:
        """Let the time of finished and reported jobs begin, at most of `limit`; returns of how many.

        Not of those with a picture that is withheld: someone has still to look at it.
        """
        with self._database.writing("begin_keeping") as db:
            return db.execute(
                "UPDATE jobs SET kept_since_s = ? WHERE serial IN (SELECT serial FROM jobs INDEXED BY jobs_ended"
                " WHERE reported = 1 AND kept_since_s IS NULL AND status IN ('done', 'failed', 'cancelled')"
                " AND holds_name = 0 AND NOT EXISTS"
                " (SELECT 1 FROM looks WHERE job_id = jobs.id AND looks.status = 'withheld') LIMIT ?)",
                (calendar_s, limit),
            ).rowcount

    def begin_leaving(self, what: Kept, before_s: float, limit: int) -> int:
        """Give up what was kept since `before_s` or earlier of at most `limit` jobs, the oldest first; of how many?"""
        old = (
            f"SELECT serial FROM jobs INDEXED BY jobs_{what} WHERE {what} = 'kept' AND kept_since_s IS NOT NULL"  # noqa: S608 - our words
            " AND kept_since_s <= ? AND reported = 1 AND status IN ('done', 'failed', 'cancelled')"
            " ORDER BY kept_since_s LIMIT ?"
        )
        with self._database.writing("begin_leaving") as db:
            change = f"UPDATE jobs SET {what} = 'leaving' WHERE serial IN ({old})"  # noqa: S608 - our words
            return db.execute(change, (before_s, limit)).rowcount

    def leaving(self, what: Kept, limit: int) -> list[Job]:
        """Return jobs whose files are to be removed."""
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs WHERE (upload = 'leaving' OR results = 'leaving') AND {what} = 'leaving'"  # noqa: S608
                " ORDER BY serial LIMIT ?",
                (limit,),
            ).fetchall()
        return [read_job(row) for row in rows]

    def confirm_gone(self, what: Kept, job_ids: Collection[str]) -> None:
        """The files are removed. Without its results, a job's looks are forgotten; the job itself is not."""
        with self._database.writing("confirm_gone") as db:
            for job_id in job_ids:
                db.execute(f"UPDATE jobs SET {what} = 'gone' WHERE id = ?", (job_id,))  # noqa: S608 - our words
                if what == "results":
                    db.execute("DELETE FROM looks WHERE job_id = ?", (job_id,))

    def placeholders(self) -> list[tuple[str, int]]:
        """Return names and inodes of the empty folders in inputs/ that have no use any more.

        Their jobs are done, or there is nothing left that could be tried again.
        """
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT name, ours FROM jobs WHERE ours IS NOT NULL AND status = 'done'"
                " UNION ALL SELECT name, ours FROM jobs WHERE ours IS NOT NULL AND status IN ('failed', 'cancelled')"
                " AND upload != 'kept'"
            ).fetchall()
        return [(row["name"], row["ours"]) for row in rows]

    def is_placeholder(self, name: str, inode: int) -> bool:
        """Is this folder the empty one that a claim left in inputs/?"""
        with self._database.reading() as db:
            query = "SELECT 1 FROM jobs WHERE name = ? AND ours = ?"
            return db.execute(query, (name, inode)).fetchone() is not None

    def take_placeholder(self, job_id: str, inode: int) -> None:
        """From now on this is the empty folder of a job: the one that it had was used for an order, or made again."""
        with self._database.writing("take_placeholder") as db:
            db.execute("UPDATE jobs SET ours = ? WHERE id = ?", (inode, job_id))

    def forget_placeholders(self, inodes: Collection[int]) -> None:
        """These empty folders are no more."""
        with self._database.writing("forget_placeholders") as db:
            db.executemany("UPDATE jobs SET ours = NULL WHERE ours = ?", [(inode,) for inode in inodes])
