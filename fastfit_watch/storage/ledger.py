"""What became of every job and look: one SQLite file in the spool, written by the daemon and by the commands.

Every method is one transaction and durable when it returns. A full or failing disk raises StorageError and changes
nothing. One `Ledger` serves all threads of a process; several processes may have the same file open.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

from fastfit_watch.domain.job import ClaimIntent, Job, LookRecord, LookResult, LookStatus, Status, Tally
from fastfit_watch.storage.database import Database
from fastfit_watch.storage.fair_queue import enqueue, is_any_due, iterate_fairly, move_to_back
from fastfit_watch.storage.outbox import Notification, Outbox, add_notifications
from fastfit_watch.storage.requests import PAUSED, Requests
from fastfit_watch.storage.retention_marks import RetentionMarks
from fastfit_watch.storage.review import Review
from fastfit_watch.storage.rows import (
    free_id,
    job_of,
    look_of,
    note_of,
    pack_look,
    pack_result,
    pictures,
    read_job,
    read_look,
    set_note,
)
from fastfit_watch.storage.transitions import (
    count_looks,
    drop_if_cancelling,
    finalise_if_done,
    progress,
    record_progress,
    tally_looks,
)


class Ledger:
    """Jobs, looks, claims and a few notes; the parts for other topics share its connection and transactions.

    requests: what people request. retention: which files may be deleted. review: withheld pictures.
    outbox: notifications.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the ledger, creating it where it is missing; `read_only` never creates or changes one.

        Raises ConfigError if it is missing (read-only) or belongs to another version of this program, StorageError
        when the disk is full or failing.
        """
        self.database = Database(path, read_only=read_only)
        self.requests = Requests(self.database)
        self.retention = RetentionMarks(self.database)
        self.review = Review(self.database)
        self.outbox = Outbox(self.database)

    @property
    def path(self) -> Path:
        """Return where the file lies."""
        return self.database.path

    def transaction(self) -> AbstractContextManager[None]:
        """Begin one common commit for all methods, of the parts too, that are called in the block."""
        return self.database.transaction()

    def close(self) -> None:
        """Close the file. The ledger opens again by itself if it is used afterwards."""
        self.database.close()

    # Jobs

    def find_or_create_unclaimed(self, name: str, now_s: float, reason: str = "just seen") -> Job:
        """Return the job of the folder `name` that is not claimed yet, made `waiting` if there is none.

        That job may also be `cancelled`: its folder was left standing when someone cancelled it.
        """
        with self.database.writing("sight") as db:
            row = db.execute("SELECT * FROM jobs WHERE name = ? AND holds_name = 1", (name,)).fetchone()
            if row is not None:
                return read_job(row)
            job_id = free_id(db, name)
            db.execute(
                "INSERT INTO jobs (id, name, status, reason, first_seen_s, changed_s) VALUES (?, ?, ?, ?, ?, ?)",
                (job_id, name, Status.WAITING, reason, now_s, now_s),
            )
            return job_of(db, job_id)

    def job(self, job_id: str) -> Job | None:
        """Return one job, or None if it was never seen."""
        with self.database.reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return read_job(row) if row is not None else None

    def jobs(self, status: Collection[Status] | None = None, limit: int | None = None) -> list[Job]:
        """Return jobs with one of these states (None: all), the newest change last; only the `limit` newest."""
        where = "" if status is None else f" WHERE status IN ({', '.join('?' * len(status))})"
        with self.database.reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs{where} ORDER BY changed_s DESC, serial DESC LIMIT ?",  # noqa: S608 - only '?' marks
                (*(status or ()), -1 if limit is None else limit),
            ).fetchall()
        return [read_job(row) for row in reversed(rows)]

    def counts(self) -> dict[Status, int]:
        """Return how many jobs have each state that occurs."""
        with self.database.reading() as db:
            rows = db.execute("SELECT status, count(*) FROM jobs GROUP BY status").fetchall()
        return {Status(status): count for status, count in rows}

    def tallies(self, job_ids: Collection[str] | None = None) -> dict[str, dict[LookStatus, Tally]]:
        """Return the looks of these jobs (None: all) by state, counted, with their steps. Jobs without are left out."""
        found: dict[str, dict[LookStatus, Tally]] = {}
        with self.database.reading() as db:
            for job_id, status, tally in tally_looks(db, job_ids):
                found.setdefault(job_id, {})[status] = tally
        return found

    def newest_job_named(self, name: str) -> Job | None:
        """Return the newest job of a folder name."""
        with self.database.reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE name = ? ORDER BY serial DESC LIMIT 1", (name,)).fetchone()
            return read_job(row) if row is not None else None

    def jobs_in_turn(self, limit: int) -> list[Job]:
        """Return the first `limit` jobs that are queued or running, in the order in which they are served next."""
        with self.database.reading() as db:
            return [job_of(db, job_id) for job_id in islice(iterate_fairly(db), limit)]

    def unclaimed_jobs(self) -> list[Job]:
        """Return the jobs whose folder stood in inputs/ when it was last seen, not claimed."""
        with self.database.reading() as db:
            rows = db.execute(
                "SELECT * FROM jobs INDEXED BY jobs_holding WHERE holds_name = 1 ORDER BY serial"
            ).fetchall()
        return [read_job(row) for row in rows]

    def set_unclaimed_status(self, job_id: str, status: Status, reason: str, now_s: float) -> Job:
        """Give an unclaimed job a state and reason, and return it as it is now.

        A job that someone cancelled, or that is claimed, keeps its state: intake may be a moment behind.
        """
        with self.database.writing("mark") as db:
            db.execute(
                "UPDATE jobs SET status = ?, reason = ?, changed_s = ?, reported = 0, finished_s = ? WHERE id = ?"
                " AND status IN ('waiting', 'stalled', 'invalid') AND claiming = 0 AND (status, reason) != (?, ?)",
                (status, reason, now_s, now_s if status.is_final else None, job_id, status, reason),
            )
            return job_of(db, job_id)

    def close_missing(self, job_id: str, reason: str, now_s: float) -> Job:
        """The folder of an unclaimed job is gone: an open job becomes `cancelled`, and its name is free again."""
        with self.database.writing("release") as db:
            db.execute(
                "UPDATE jobs SET status = 'cancelled', reason = ?, changed_s = ?, finished_s = ?, reported = 0"
                " WHERE id = ? AND status IN ('waiting', 'stalled', 'invalid') AND claiming = 0",
                (reason, now_s, now_s, job_id),
            )
            db.execute("UPDATE jobs SET holds_name = 0 WHERE id = ? AND claiming = 0", (job_id,))
            return job_of(db, job_id)

    # Claims: first the intent, then the rename, then the queue

    def begin_claim(self, intent: ClaimIntent, now_s: float) -> bool:
        """Record that this job is about to be claimed. False, and nothing is recorded, if it was cancelled meanwhile.

        Raises ValueError if a look has no seed.
        """
        if any(look.options.seed is None for look in intent.looks):
            raise ValueError("Every look needs its seed before it is claimed.")
        with self.database.writing("begin_claim") as db:
            begun = db.execute(
                "UPDATE jobs SET claiming = 1, manifest = ?, files = ?, origin = ?, changed_s = ?, uploader = ?,"
                " priority = coalesce(priority, ?) WHERE id = ? AND holds_name = 1"
                " AND status IN ('waiting', 'stalled', 'invalid')",
                (
                    intent.manifest,
                    json.dumps(dict(intent.files), ensure_ascii=False),
                    intent.origin,
                    now_s,
                    intent.uploader,
                    intent.priority or None,
                    intent.job_id,
                ),
            ).rowcount
            if not begun:
                return False
            db.execute("DELETE FROM looks WHERE job_id = ?", (intent.job_id,))
            db.executemany(
                "INSERT INTO looks (job_id, position, key, look, status) VALUES (?, ?, ?, ?, 'queued')",
                [(intent.job_id, position, look.key, pack_look(look)) for position, look in enumerate(intent.looks)],
            )
            return True

    def finish_claim(self, job_id: str, now_s: float, ours: int | None = None) -> Job:
        """The upload is safe in the spool: the job is `queued`, or `cancelled` if someone asked for that meanwhile.

        ours: inode of the empty folder that was put in its place.
        """
        with self.database.writing("finish_claim") as db:
            total = count_looks(db, job_id)
            claimed = db.execute(
                "UPDATE jobs SET claiming = 0, holds_name = 0, status = 'queued', reason = ?, claimed_s = ?,"
                " changed_s = ?, ours = ?, reported = 0 WHERE id = ? AND claiming = 1",
                (f"{pictures(total)} to make", now_s, now_s, ours, job_id),
            ).rowcount
            if claimed:
                enqueue(db, job_id, job_of(db, job_id).first_seen_s)
            drop_if_cancelling(db, job_id)
            return finalise_if_done(db, job_id, now_s) or job_of(db, job_id)

    def abandon_claim(self, job_id: str, reason: str, now_s: float) -> Job:
        """The folder changed before it was taken: the job waits again."""
        with self.database.writing("abandon_claim") as db:
            db.execute("DELETE FROM looks WHERE job_id = ?", (job_id,))
            db.execute(
                "UPDATE jobs SET claiming = 0, manifest = '', files = '{}', origin = '', changed_s = ?,"
                " status = iif(cancelling, 'cancelled', 'waiting'),"
                " reason = iif(cancelling, 'cancelled by request', ?), cancelling = 0, reported = 0"
                " WHERE id = ? AND claiming = 1",
                (now_s, reason, job_id),
            )
            return job_of(db, job_id)

    def pending_claims(self) -> list[tuple[Job, str]]:
        """Return the jobs whose claim was begun and neither finished nor abandoned, each with its origin."""
        with self.database.reading() as db:
            rows = db.execute("SELECT * FROM jobs WHERE claiming = 1 ORDER BY serial").fetchall()
        return [(read_job(row), str(row["origin"])) for row in rows]

    def was_claimed_by_copy(self, name: str, origin: str) -> bool:
        """Was this very content already claimed from this folder? True for uploads that were copied, not moved."""
        with self.database.reading() as db:
            query = "SELECT 1 FROM jobs WHERE name = ? AND origin = ? AND claimed_s IS NOT NULL"
            return db.execute(query, (name, origin)).fetchone() is not None

    def without_files(self, job_ids: Collection[str]) -> list[str]:
        """Return those of these names that are no job, or a job of which nothing should be in the spool yet."""
        with self.database.reading() as db:
            rows = db.execute(
                "SELECT value FROM json_each(?) AS named LEFT JOIN jobs ON jobs.id = named.value"
                " WHERE jobs.id IS NULL OR (claimed_s IS NULL AND files = '{}')",
                (json.dumps(list(job_ids)),),
            ).fetchall()
        return [str(row["value"]) for row in rows]

    # Looks

    def looks(self, job_id: str) -> list[LookRecord]:
        """Return the looks of a job in the order of its manifest; none before it is claimed."""
        with self.database.reading() as db:
            rows = db.execute("SELECT * FROM looks WHERE job_id = ? ORDER BY position", (job_id,)).fetchall()
        return [read_look(row) for row in rows]

    def next_looks(self, now_s: float, limit: int, exclude: Collection[tuple[str, str]] = ()) -> list[LookRecord]:
        """Return up to `limit` queued looks that are due, fairest first; none while paused.

        The first one is whose turn it is (`ledger_turns`); then one look of each job in line, before the second of
        any. Within a job, looks come in the manifest's order. `exclude` holds (job id, look key).
        """
        skipped = set(exclude)
        hands: list[list[LookRecord]] = []
        with self.database.reading() as db:
            if note_of(db, PAUSED) is not None or not is_any_due(db, now_s):
                return []
            for job_id in iterate_fairly(db):
                due = db.execute(
                    "SELECT * FROM looks WHERE job_id = ? AND status = 'queued'"
                    " AND (not_before_s <= ? OR since_s > ?) ORDER BY position LIMIT ?",
                    (job_id, now_s, now_s, limit + len(skipped)),
                ).fetchall()
                hand = [read_look(row) for row in due if (job_id, row["key"]) not in skipped]
                hands += [hand] if hand else []
                if len(hands) >= limit:
                    break
        rounds = [hand[turn] for turn in range(limit) for hand in hands if turn < len(hand)]
        return rounds[:limit]

    def start_attempt(self, job_id: str, key: str, now_s: float) -> LookRecord | None:
        """Count one more attempt, before the engine is asked. None if the look is not queued (cancelled meanwhile)."""
        with self.database.writing("start_attempt") as db:
            started = db.execute(
                "UPDATE looks SET status = 'running', attempts = attempts + 1, reason = ''"
                " WHERE job_id = ? AND key = ? AND status = 'queued'",
                (job_id, key),
            ).rowcount
            if not started:
                return None
            db.execute(
                "UPDATE jobs SET status = 'running', reason = ?, started_s = coalesce(started_s, ?), changed_s = ?"
                " WHERE id = ?",
                (progress(db, job_id), now_s, now_s, job_id),
            )
            move_to_back(db, job_id)
            return look_of(db, job_id, key)

    def finish_look(self, job_id: str, key: str, result: LookResult, now_s: float) -> None:
        """The picture of this look is in outputs/. Also right for one found there after a crash."""
        with self.database.writing("finish_look") as db:
            values = (LookStatus.DONE, "", pack_result(result), job_id, key)
            db.execute("UPDATE looks SET status = ?, reason = ?, result = ? WHERE job_id = ? AND key = ?", values)
            record_progress(db, job_id, now_s)

    def put_back(
        self,
        job_id: str,
        key: str,
        reason: str,
        not_before_s: float,
        now_s: float,
        *,
        death: bool = False,
        attempt_counts: bool = True,
    ) -> None:
        """Return a running look to the queue; of a job being cancelled, drop it.

        death: it took an engine process down. attempt_counts=False takes the attempt back: the look was not to blame.
        """
        with self.database.writing("put_back") as db:
            db.execute(
                "UPDATE looks SET status = 'queued', reason = ?, not_before_s = ?, since_s = ?, deaths = deaths + ?,"
                " attempts = attempts - ? WHERE job_id = ? AND key = ? AND status = 'running'",
                (reason, not_before_s, now_s, int(death), int(not attempt_counts), job_id, key),
            )
            drop_if_cancelling(db, job_id)
            record_progress(db, job_id, now_s)

    def fail_look(self, job_id: str, key: str, reason: str, now_s: float) -> None:
        """Give a look up. Its neighbours go on."""
        with self.database.writing("fail_look") as db:
            values = (LookStatus.FAILED, reason, job_id, key)
            db.execute("UPDATE looks SET status = ?, reason = ? WHERE job_id = ? AND key = ?", values)
            record_progress(db, job_id, now_s)

    def settle_job(self, job_id: str, now_s: float) -> Job | None:
        """Give a job its final state once no look is queued or running; the job if it just became final, else None."""
        with self.database.writing("settle_job") as db:
            return finalise_if_done(db, job_id, now_s)

    def running_looks(self) -> list[LookRecord]:
        """Return every look marked running: after a crash, those that were in hand."""
        with self.database.reading() as db:
            rows = db.execute("SELECT * FROM looks WHERE status = 'running' ORDER BY job_id, position").fetchall()
        return [read_look(row) for row in rows]

    def unreported(self, limit: int = -1) -> list[Job]:
        """Return final jobs whose last state was not yet written to outputs/ (`confirm_report`); -1: all of them."""
        with self.database.reading() as db:
            rows = db.execute(
                "SELECT * FROM jobs INDEXED BY jobs_unreported WHERE reported = 0"
                " AND status IN ('done', 'failed', 'cancelled') ORDER BY serial LIMIT ?",
                (limit,),
            ).fetchall()
        return [read_job(row) for row in rows]

    def confirm_report(self, job: Job, notifications: Collection[Notification] = ()) -> bool:
        """The report of this final job is complete on disk. With the same commit, letters about it are to be sent.

        Returns False, and does nothing, if the job is not what the report says any more: it was tried again meanwhile.
        """
        with self.database.writing("confirm_report") as db:
            confirmed = db.execute(
                "UPDATE jobs SET reported = 1 WHERE id = ? AND status = ? AND changed_s = ? AND finished_s IS ?",
                (job.id, job.status, job.changed_s, job.finished_s),
            ).rowcount
            if confirmed:
                add_notifications(db, notifications)
        return bool(confirmed)

    # Notes

    def put_note(self, key: str, value: str) -> None:
        """Record one small fact for `status` and for the next start."""
        with self.database.writing("put_note") as db:
            set_note(db, key, value)

    def note(self, key: str) -> str | None:
        """Return a fact recorded by `put_note`, or None."""
        with self.database.reading() as db:
            return note_of(db, key)
