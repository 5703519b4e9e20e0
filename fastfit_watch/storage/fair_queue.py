"""Whose turn is it? Fair turns by uploader, by batch and by job, inside the ledger's transactions.

An uploader is the owner of the folder that came. Where all come as one user, as on most rented machines, what came
within a few seconds is one batch, and batches take turns as well: ten thousand jobs dropped at once and one that comes
later are two batches. Within a batch jobs take turns, and each gives one look before the next does.

Served next is the uploader served longest ago; of that one the batch, and of that the job, served longest ago. One that
is new comes before the one that was served last, so it waits for nothing but what is in hand, and yet cannot keep
those out who wait for longer. Turns are counted in looks, never in time: clocks jump, counts do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from sqlite3 import Connection

from fastfit_watch.domain.job import Priority

TOGETHER_S = 5.0
# Uploads of one band compete. An uploader may order the own uploads, and step back behind all; not before others.
BANDS = ((Priority.URGENT,), (Priority.HIGH, Priority.NORMAL), (Priority.LOW,))


def next_turn(db: Connection) -> int:
    (turn,) = db.execute("UPDATE turns SET last = last + 1 RETURNING last").fetchone()
    return int(turn)


def enqueue(db: Connection, job_id: str, seen_s: float) -> None:
    """Put a queued job in line, at the end of the batch that came together with it, or in a batch of its own."""
    dequeue(db, job_id)
    row = db.execute("SELECT uploader, coalesce(priority, 0) AS priority FROM jobs WHERE id = ?", (job_id,)).fetchone()
    uploader, priority = row["uploader"], row["priority"]
    db.execute(
        "INSERT INTO uploaders SELECT ?, coalesce(max(turn), 0) - 0.5 FROM uploaders WHERE true ON CONFLICT DO NOTHING",
        (uploader,),
    )
    found = db.execute(
        "SELECT id FROM batches WHERE uploader = ? AND priority = ? AND abs(seen_s - ?) <= ? ORDER BY id DESC LIMIT 1",
        (uploader, priority, seen_s, TOGETHER_S),
    ).fetchone()
    if found is None:
        found = db.execute(
            "INSERT INTO batches (uploader, priority, seen_s, turn)"
            " SELECT ?, ?, ?, turn - 0.5 FROM uploaders WHERE name = ? RETURNING id",
            (uploader, priority, seen_s, uploader),
        ).fetchone()
    else:
        db.execute("UPDATE batches SET seen_s = max(seen_s, ?) WHERE id = ?", (seen_s, found["id"]))
    db.execute("UPDATE jobs SET batch = ?, turn = ? WHERE id = ?", (found["id"], next_turn(db), job_id))


def dequeue(db: Connection, job_id: str) -> None:
    """Take a job out of the line; a batch without jobs is forgotten."""
    (batch,) = db.execute("SELECT batch FROM jobs WHERE id = ?", (job_id,)).fetchone()
    db.execute("UPDATE jobs SET batch = NULL WHERE id = ?", (job_id,))
    db.execute(
        "DELETE FROM batches WHERE id = ?"
        " AND NOT EXISTS (SELECT 1 FROM jobs WHERE batch = ? AND status IN ('queued', 'running'))",
        (batch, batch),
    )


def move_to_back(db: Connection, job_id: str) -> None:
    """A look of this job is handed out: it, its batch and its uploader go to the end of their lines."""
    turn = next_turn(db)
    db.execute("UPDATE jobs SET turn = ? WHERE id = ?", (turn, job_id))
    db.execute("UPDATE batches SET turn = ? WHERE id = (SELECT batch FROM jobs WHERE id = ?)", (turn, job_id))
    db.execute("UPDATE uploaders SET turn = ? WHERE name = (SELECT uploader FROM jobs WHERE id = ?)", (turn, job_id))


def is_any_due(db: Connection, now_s: float) -> bool:
    """Is there a queued look whose time has come? A cheap question: the line need not be walked."""
    due = "SELECT 1 FROM looks WHERE status = 'queued' AND not_before_s <= ? LIMIT 1"
    if db.execute(due, (now_s,)).fetchone() is not None:
        return True
    early = "SELECT 1 FROM looks WHERE status = 'queued' AND not_before_s > ? AND since_s > ? LIMIT 1"
    return db.execute(early, (now_s, now_s)).fetchone() is not None


def iterate_fairly(db: Connection) -> Iterator[str]:
    """The ids of all jobs in line, the next one first: one of each uploader, then the second of each."""
    for band in BANDS:
        marks = ", ".join("?" * len(band))
        uploaders = db.execute(
            f"SELECT name FROM uploaders WHERE EXISTS"  # noqa: S608 - only '?' marks
            f" (SELECT 1 FROM batches WHERE uploader = name AND priority IN ({marks})) ORDER BY turn, rowid",
            band,
        ).fetchall()
        yield from _in_rounds([_line_of(db, uploader, band) for (uploader,) in uploaders])


def _line_of(db: Connection, uploader: str, band: tuple[Priority, ...]) -> Iterator[str]:
    """The jobs of one uploader, those of a higher priority before all others, one of each batch in turn."""
    for priority in band:
        query = "SELECT id FROM batches WHERE uploader = ? AND priority = ? ORDER BY turn, id"
        batches = db.execute(query, (uploader, priority)).fetchall()
        yield from _in_rounds([_jobs_of(db, batch) for (batch,) in batches])


def _jobs_of(db: Connection, batch: int) -> Iterator[str]:
    query = "SELECT id FROM jobs WHERE batch = ? AND status IN ('queued', 'running') ORDER BY turn, serial"
    for (job_id,) in db.execute(query, (batch,)):
        yield job_id


def _in_rounds(lines: list[Iterator[str]]) -> Iterator[str]:
    """The first of each line, then the second of each, and so on; nothing is read before it is asked for."""
    while lines:
        longer = []
        for line in lines:
            for job_id in islice(line, 1):
                longer.append(line)
                yield job_id
        lines = longer
