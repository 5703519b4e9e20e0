"""Views of the ledger for pages that show a part of many jobs: what a page holds, and whether it has changed since.

A shelf is a run of jobs in the order of their first sight. Its jobs never move to another shelf, so that a new job, or
a change of an old one, concerns one shelf only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastfit_watch.domain.job import Job, LookRecord, LookStatus, Status
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.rows import read_job, read_look


@dataclass(frozen=True)
class Shelf:
    """A run of jobs. number: counts from 1, the oldest jobs. mark: differs whenever one of the jobs has changed."""

    number: int
    mark: str
    counts: Mapping[Status, int]

    @property
    def jobs(self) -> int:
        """How many jobs stand on it."""
        return sum(self.counts.values())


def read_shelves(ledger: Ledger, size: int) -> list[Shelf]:
    """Every shelf of `size` places, the oldest first. Reads indexes and no job."""
    questions = (
        # A sum of whole microseconds is exact, and clocks that are set back change it too.
        ("sum(CAST(changed_s * 1000000 AS INTEGER))", "TRUE"),
        ("count(results)", "results = 'kept' AND kept_since_s IS NOT NULL"),
        ("count(upload)", "upload = 'kept' AND kept_since_s IS NOT NULL"),
    )
    marks: dict[int, list[str]] = {}
    counts: dict[int, dict[Status, int]] = {}
    with ledger.database.reading() as db:
        for value, condition in questions:
            query = f"SELECT (serial - 1) / ? + 1 AS shelf, {value} FROM jobs WHERE {condition} GROUP BY shelf"  # noqa: S608
            for number, found in db.execute(query, (size,)):
                marks.setdefault(number, []).append(f"{value}={found}")
        states = "SELECT (serial - 1) / ? + 1 AS shelf, status, count(*) FROM jobs GROUP BY shelf, status"
        for number, status, count in db.execute(states, (size,)):
            counts.setdefault(number, {})[Status(status)] = count
            marks[number].append(f"{status}{count}")
    return [Shelf(number, ":".join(marks[number]), counts[number]) for number in sorted(counts)]


def jobs_on_shelf(ledger: Ledger, number: int, size: int) -> list[Job]:
    """The jobs of one shelf, the oldest first."""
    with ledger.database.reading() as db:
        rows = db.execute(
            "SELECT * FROM jobs WHERE serial > ? AND serial <= ? ORDER BY serial", ((number - 1) * size, number * size)
        ).fetchall()
    return [read_job(row) for row in rows]


def newest_jobs(ledger: Ledger, status: Sequence[Status], limit: int) -> list[Job]:
    """The jobs with one of these states that changed last, the newest first. Reads no more rows than it returns."""
    marks = ", ".join("?" * len(status))
    with ledger.database.reading() as db:
        rows = db.execute(
            "SELECT * FROM jobs WHERE serial IN (SELECT serial FROM jobs"  # noqa: S608 - only '?' marks
            f" WHERE status IN ({marks}) ORDER BY changed_s DESC, serial DESC LIMIT ?)"
            " ORDER BY changed_s DESC, serial DESC",
            (*status, limit),
        ).fetchall()
    return [read_job(row) for row in rows]


def oldest_jobs(ledger: Ledger, status: Sequence[Status], limit: int | None) -> list[Job]:
    """The jobs with one of these states, in the order of the states, those that came first in front (None: all)."""
    marks = ", ".join("?" * len(status))
    ranks = " ".join(f"WHEN ? THEN {rank}" for rank in range(len(status)))
    order = f"CASE status {ranks} END, coalesce(claimed_s, first_seen_s), serial"
    with ledger.database.reading() as db:
        rows = db.execute(
            "SELECT * FROM jobs WHERE serial IN (SELECT serial FROM jobs"  # noqa: S608 - only '?' marks and numbers
            f" WHERE status IN ({marks}) ORDER BY {order} LIMIT ?) ORDER BY {order}",
            (*status, *status, -1 if limit is None else limit, *status),
        ).fetchall()
    return [read_job(row) for row in rows]


def job_ids(ledger: Ledger, status: Sequence[Status]) -> list[str]:
    """The names of all jobs with one of these states. Much cheaper than the jobs."""
    with ledger.database.reading() as db:
        rows = db.execute(f"SELECT id FROM jobs WHERE status IN ({', '.join('?' * len(status))})", status)  # noqa: S608
        return [str(job_id) for (job_id,) in rows]


def some_looks(ledger: Ledger, job_id: str, first: int, limit: int) -> list[LookRecord]:
    """The looks of a job from position `first` on."""
    with ledger.database.reading() as db:
        rows = db.execute(
            "SELECT * FROM looks WHERE job_id = ? AND position >= ? AND position < ? ORDER BY position",
            (job_id, first, first + limit),
        ).fetchall()
    return [read_look(row) for row in rows]


def some_pictures(ledger: Ledger, job_id: str, limit: int, *, newest: bool) -> list[LookRecord]:
    """The looks of a job whose pictures are made: its last ones, the last first, or its first ones."""
    order = "DESC" if newest else "ASC"
    with ledger.database.reading() as db:
        rows = db.execute(
            f"SELECT * FROM looks WHERE job_id = ? AND status = ? ORDER BY position {order} LIMIT ?",  # noqa: S608
            (job_id, LookStatus.DONE, limit),
        ).fetchall()
    return [read_look(row) for row in rows]


def look_names(ledger: Ledger, job_id: str, limit: int) -> list[str]:
    """The names of a job's looks in the order of its manifest, each once."""
    with ledger.database.reading() as db:
        rows = db.execute(
            "SELECT json_extract(look, '$.name') AS name FROM looks WHERE job_id = ? GROUP BY name"
            " ORDER BY min(position) LIMIT ?",
            (job_id, limit),
        ).fetchall()
    return [str(name) for (name,) in rows]


def look_marks(ledger: Ledger, job_id: str, size: int) -> list[str]:
    """For every `size` looks of a job in turn, a text that differs whenever one of them has changed."""
    marks: list[str] = []
    with ledger.database.reading() as db:
        rows = db.execute(
            "SELECT status, attempts, deaths, reason, result FROM looks WHERE job_id = ? ORDER BY position", (job_id,)
        )
        while some := rows.fetchmany(size):
            marks.append(hashlib.sha256(repr([tuple(row) for row in some]).encode()).hexdigest()[:16])
    return marks


def oldest_since(ledger: Ledger) -> dict[Status, float]:
    """Return, for each unfinished state that occurs, since when (Unix time) its oldest job has been waiting."""
    with ledger.database.reading() as db:
        rows = db.execute(
            "SELECT status, min(coalesce(claimed_s, first_seen_s)) FROM jobs"
            " WHERE status IN ('waiting', 'stalled', 'invalid', 'queued', 'running') GROUP BY status"
        ).fetchall()
    return {Status(status): since_s for status, since_s in rows}


def count_unfinished_looks(ledger: Ledger) -> dict[LookStatus, int]:
    """Return how many looks are queued and running."""
    counts = {}
    with ledger.database.reading() as db:
        for status in (LookStatus.QUEUED, LookStatus.RUNNING):
            # One query each: SQLite has a small index for each of these states alone.
            query = f"SELECT count(*) FROM looks WHERE status = '{status.value}'"  # noqa: S608 - our own word
            (counts[status],) = db.execute(query).fetchone()
    return counts
