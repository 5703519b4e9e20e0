"""Changes the states of jobs and looks, inside one transaction."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from sqlite3 import Connection

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import Job, LookStatus, Status, Tally
from fastfit_watch.storage.fair_queue import dequeue, enqueue
from fastfit_watch.storage.rows import job_of, pictures, read_job

REASONS_SHOWN = 5


def count_looks(db: Connection, job_id: str, *status: LookStatus) -> int:
    """How many looks of a job have one of these states; with none given, how many it has."""
    wanted = status or tuple(LookStatus)
    query = f"SELECT count(*) FROM looks WHERE job_id = ? AND status IN ({', '.join('?' * len(wanted))})"  # noqa: S608
    (count,) = db.execute(query, (job_id, *wanted)).fetchone()
    return int(count)


def tally_looks(db: Connection, job_ids: Collection[str] | None) -> list[tuple[str, LookStatus, Tally]]:
    """The looks of each job (None: of all) by state."""
    query = "SELECT job_id, status, count(*), sum(json_extract(look, '$.options.steps')) FROM looks"
    where = "" if job_ids is None else " WHERE job_id IN (SELECT value FROM json_each(?))"
    wanted = () if job_ids is None else (json.dumps(list(job_ids)),)
    rows = db.execute(f"{query}{where} GROUP BY job_id, status", wanted)
    return [(job_id, LookStatus(status), Tally(count, steps)) for job_id, status, count, steps in rows]


def progress(db: Connection, job_id: str) -> str:
    return f"{count_looks(db, job_id, LookStatus.DONE)} of {pictures(count_looks(db, job_id))} made"


def record_progress(db: Connection, job_id: str, now_s: float) -> None:
    """Note that a job moved on."""
    db.execute(
        "UPDATE jobs SET changed_s = ?, reason = iif(cancelling, reason, ?) WHERE id = ?",
        (now_s, progress(db, job_id), job_id),
    )


def drop_if_cancelling(db: Connection, job_id: str) -> None:
    """Cancel the queued looks of a job that someone cancelled."""
    db.execute(
        "UPDATE looks SET status = 'cancelled', reason = 'cancelled by request' WHERE job_id = ? AND status = 'queued'"
        " AND (SELECT cancelling FROM jobs WHERE id = ?)",
        (job_id, job_id),
    )


def finalise_if_done(db: Connection, job_id: str, now_s: float) -> Job | None:
    """The final state follows from the looks; None while any is queued or running, or if it was final before."""
    row = db.execute("SELECT * FROM jobs WHERE id = ? AND status IN ('queued', 'running')", (job_id,)).fetchone()
    if row is None or count_looks(db, job_id, LookStatus.QUEUED, LookStatus.RUNNING):
        return None
    status, reason = final_status(db, job_id)
    db.execute(
        "UPDATE jobs SET status = ?, reason = ?, changed_s = ?, finished_s = ?, cancelling = 0, reported = 0"
        " WHERE id = ?",
        (status, reason, now_s, now_s, job_id),
    )
    dequeue(db, job_id)
    return replace(read_job(row), status=status, reason=reason, changed_s=now_s, finished_s=now_s)


def final_status(db: Connection, job_id: str) -> tuple[Status, str]:
    """The final state and its reason of a job none of whose looks is queued or running."""
    total, done = count_looks(db, job_id), count_looks(db, job_id, LookStatus.DONE)
    failed, withheld = (count_looks(db, job_id, status) for status in (LookStatus.FAILED, LookStatus.WITHHELD))
    kept_back = f"; {withheld} withheld: {_reasons(db, job_id, LookStatus.WITHHELD, withheld)}" if withheld else ""
    if done + failed + withheld < total:
        return Status.CANCELLED, f"cancelled by request; {done} of {pictures(total)} made{kept_back}"
    if failed:
        reasons = _reasons(db, job_id, LookStatus.FAILED, failed)
        return Status.FAILED, f"{failed} of {total} looks failed: {reasons}{kept_back}"
    return Status.DONE, f"{pictures(done)} made{kept_back}"


def _reasons(db: Connection, job_id: str, status: LookStatus, count: int) -> str:
    """Why looks are in this state; those with the same reason share a sentence."""
    chosen = "FROM looks WHERE job_id = ? AND status = ?"
    groups = db.execute(
        f"SELECT reason, count(*) AS looks {chosen} GROUP BY reason ORDER BY min(position) LIMIT ?",
        (job_id, status, REASONS_SHOWN),
    ).fetchall()
    sentences = []
    for group in groups:
        rows = db.execute(
            f"SELECT key {chosen} AND reason = ? ORDER BY position LIMIT ?",
            (job_id, status, group["reason"], REASONS_SHOWN),
        )
        keys = [row["key"] for row in rows]
        more = group["looks"] - len(keys)
        sentences.append(f"{', '.join(keys)}{f' and {more} more' if more else ''}: {group['reason']}")
    unsaid = count - sum(group["looks"] for group in groups)
    return "; ".join([*sentences, f"and {unsaid} more"] if unsaid else sentences)


def retry_looks(db: Connection, job: Job, now_s: float) -> Job:
    """The failed and cancelled looks of a claimed job begin again."""
    again = count_looks(db, job.id, LookStatus.FAILED, LookStatus.CANCELLED)
    if not again:
        raise ConfigError(f"Job '{job.id}' is {job.status}: it has no failed or cancelled look to retry.")
    if not job.has_upload:
        raise ConfigError(f"The pictures of job '{job.id}' were kept for their time and removed.", hint="Upload again.")
    db.execute(
        "UPDATE looks SET status = 'queued', reason = '', attempts = 0, deaths = 0, not_before_s = 0"
        " WHERE job_id = ? AND status IN ('failed', 'cancelled')",
        (job.id,),
    )
    db.execute(
        "UPDATE jobs SET cancelling = 0, reported = 0, finished_s = NULL, kept_since_s = NULL, reason = ?,"
        " changed_s = ?, status = iif(status = 'running', 'running', 'queued'),"
        " started_s = iif(status = 'running', started_s, NULL) WHERE id = ?",
        (f"trying {pictures(again)} again", now_s, job.id),
    )
    enqueue(db, job.id, now_s)
    return job_of(db, job.id)


def retry_upload(db: Connection, job: Job, now_s: float) -> Job:
    """An upload that was not claimed is checked again, if its folder still stands."""
    again = db.execute(
        "UPDATE jobs SET status = 'waiting', reason = 'being checked again', changed_s = ?, finished_s = NULL,"
        " reported = 0, kept_since_s = NULL WHERE id = ? AND holds_name = 1"
        " AND status IN ('invalid', 'stalled', 'cancelled')",
        (now_s, job.id),
    ).rowcount
    if again:
        return job_of(db, job.id)
    if job.status is Status.CANCELLED:
        raise ConfigError(f"The folder of job '{job.id}' is gone.", hint="Upload it again.")
    raise ConfigError(f"Job '{job.id}' is {job.status}: {job.reason}.", hint="It is checked again at every change.")
