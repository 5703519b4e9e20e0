"""The ledger's single statements, and the way from its rows to records and back. Each works inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from sqlite3 import Connection, Row

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import Job, LookRecord, LookResult, LookStatus, Priority, Status, Tally
from fastfit_watch.domain.look import Category, Framing, ImageFormat, Look, MaskMode, Preset, SamplingOptions
from fastfit_watch.storage.fair_queue import join_line, leave_line

REASONS_SHOWN = 5


def pack_look(look: Look) -> str:
    """One look as JSON text, the form `unpack_look` reads."""
    fields = {
        "person": look.person,
        "name": look.name,
        "garments": dict(look.garments),
        "options": asdict(look.options),
    }
    return json.dumps(fields, ensure_ascii=False)


def unpack_look(text: str) -> Look:
    """One look from the text of `pack_look`."""
    fields = json.loads(text)
    options = fields["options"]
    return Look(
        person=fields["person"],
        name=fields["name"],
        garments={Category(slot): file for slot, file in fields["garments"].items()},
        options=SamplingOptions(
            steps=options["steps"],
            seed=options["seed"],
            guidance=options["guidance"],
            mask=MaskMode(options["mask"]),
            framing=Framing(options["framing"]),
            format=ImageFormat(options["format"]),
            preset=Preset(options.get("preset", Preset.EXACT)),  # older ledgers know only this one
        ),
    )


def pack_result(result: LookResult) -> str:
    """One result as JSON text, the form `read_look` reads."""
    mappings = {name: dict(getattr(result, name)) for name in ("seconds", "versions", "shortages", "cache")}
    return json.dumps({**vars(result), **mappings})


def read_job(row: Row) -> Job:
    """One row of `jobs`."""
    return Job(
        id=row["id"],
        name=row["name"],
        status=Status(row["status"]),
        reason=row["reason"],
        first_seen_s=row["first_seen_s"],
        changed_s=row["changed_s"],
        claimed_s=row["claimed_s"],
        started_s=row["started_s"],
        finished_s=row["finished_s"],
        manifest=row["manifest"],
        files=json.loads(row["files"]),
        priority=Priority(row["priority"] or 0),
        has_upload=row["upload"] == "kept",
        has_results=row["results"] == "kept",
    )


def read_look(row: Row) -> LookRecord:
    """One row of `looks`."""
    return LookRecord(
        job_id=row["job_id"],
        position=row["position"],
        look=unpack_look(row["look"]),
        status=LookStatus(row["status"]),
        reason=row["reason"],
        attempts=row["attempts"],
        deaths=row["deaths"],
        not_before_s=row["not_before_s"],
        result=LookResult(**json.loads(row["result"])) if row["result"] else None,
    )


def free_id(db: Connection, name: str) -> str:
    """`name`, or `name-2`, `name-3`... when the name comes again. A folder may itself be called `name-2`."""
    (seen,) = db.execute("SELECT count(*) FROM jobs WHERE name = ?", (name,)).fetchone()
    number = seen + 1
    while True:
        job_id = name if number == 1 else f"{name}-{number}"
        if db.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is None:
            return job_id
        number += 1


def job_of(db: Connection, job_id: str) -> Job:
    return read_job(db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone())


def known_job(db: Connection, job_id: str) -> Job:
    if db.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is None:
        raise ConfigError(f"There is no job '{job_id}'.", hint="See 'fastfit-watch status' for the known jobs.")
    return job_of(db, job_id)


def look_of(db: Connection, job_id: str, key: str) -> LookRecord:
    return read_look(db.execute("SELECT * FROM looks WHERE job_id = ? AND key = ?", (job_id, key)).fetchone())


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


def pictures(count: int) -> str:
    return f"{count} picture" if count == 1 else f"{count} pictures"


def progress(db: Connection, job_id: str) -> str:
    return f"{count_looks(db, job_id, LookStatus.DONE)} of {pictures(count_looks(db, job_id))} made"


def touch(db: Connection, job_id: str, now_s: float) -> None:
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


def settle(db: Connection, job_id: str, now_s: float) -> Job | None:
    """The final state follows from the looks; None while any is queued or running, or if it was final before."""
    row = db.execute("SELECT * FROM jobs WHERE id = ? AND status IN ('queued', 'running')", (job_id,)).fetchone()
    if row is None or count_looks(db, job_id, LookStatus.QUEUED, LookStatus.RUNNING):
        return None
    status, reason = sum_up(db, job_id)
    db.execute(
        "UPDATE jobs SET status = ?, reason = ?, changed_s = ?, finished_s = ?, cancelling = 0, reported = 0"
        " WHERE id = ?",
        (status, reason, now_s, now_s, job_id),
    )
    leave_line(db, job_id)
    return replace(read_job(row), status=status, reason=reason, changed_s=now_s, finished_s=now_s)


def sum_up(db: Connection, job_id: str) -> tuple[Status, str]:
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
    join_line(db, job.id, now_s)
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


def note_of(db: Connection, key: str) -> str | None:
    row = db.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
    return str(row["value"]) if row is not None else None


def set_note(db: Connection, key: str, value: str) -> None:
    db.execute(
        "INSERT INTO notes VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
