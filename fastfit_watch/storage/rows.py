"""The ledger's single statements, and the way from its rows to records and back. Each works inside a transaction."""

from __future__ import annotations

import json
from sqlite3 import Connection, Row

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import Job, LookRecord, LookResult, LookStatus, Priority, Status
from fastfit_watch.domain.look import Category, Look, SamplingOptions


def pack_look(look: Look) -> str:
    """One look as JSON text, the form `unpack_look` reads."""
    fields = {
        "person": look.person,
        "name": look.name,
        "garments": dict(look.garments),
        "options": look.options.to_dict(),
    }
    return json.dumps(fields, ensure_ascii=False)


def unpack_look(text: str) -> Look:
    """One look from the text of `pack_look`."""
    fields = json.loads(text)
    return Look(
        person=fields["person"],
        name=fields["name"],
        garments={Category(slot): file for slot, file in fields["garments"].items()},
        options=SamplingOptions.from_dict(fields["options"]),
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


def pictures(count: int) -> str:
    return f"{count} picture" if count == 1 else f"{count} pictures"


def note_of(db: Connection, key: str) -> str | None:
    row = db.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
    return str(row["value"]) if row is not None else None


def set_note(db: Connection, key: str, value: str) -> None:
    db.execute(
        "INSERT INTO notes VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
