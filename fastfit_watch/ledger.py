"""What became of every job and look: one SQLite file in the spool, written by the daemon and by the commands.

Every method is one transaction and durable when it returns. A full or failing disk raises StorageError and changes
nothing. One `Ledger` serves all threads of a process; several processes may have the same file open.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from fastfit_watch.errors import ConfigError
from fastfit_watch.job import Job, LookRecord, LookResult, LookStatus, Status
from fastfit_watch.ledger_rows import (
    count_looks,
    drop_if_cancelling,
    free_id,
    job_of,
    known_job,
    look_of,
    next_turn,
    note_of,
    pack_look,
    pack_result,
    pictures,
    progress,
    read_job,
    read_look,
    retry_upload,
    set_note,
    settle,
    touch,
)
from fastfit_watch.ledger_schema import LedgerFile
from fastfit_watch.look import Look

PAUSED = "paused"


class Ledger(LedgerFile):
    """Jobs, looks and a few notes: `Ledger(path)`, or `Ledger(path, read_only=True)` to look only."""

    # Jobs

    def sight(self, name: str, now_s: float, reason: str = "just seen") -> Job:
        """Return the job of the folder `name` that is not claimed yet, made `waiting` if there is none.

        That job may also be `cancelled`: its folder was left standing when someone cancelled it.
        """
        with self.writing("sight") as db:
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
        with self.reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return read_job(row) if row is not None else None

    def jobs(self, status: Collection[Status] | None = None, limit: int | None = None) -> list[Job]:
        """Return jobs with one of these states (None: all), the newest change last; only the `limit` newest."""
        where = "" if status is None else f" WHERE status IN ({', '.join('?' * len(status))})"
        with self.reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs{where} ORDER BY changed_s DESC, serial DESC LIMIT ?",  # noqa: S608 - only '?' marks
                (*(status or ()), -1 if limit is None else limit),
            ).fetchall()
        return [read_job(row) for row in reversed(rows)]

    def newest(self, name: str) -> Job | None:
        """Return the newest job of a folder name."""
        with self.reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE name = ? ORDER BY serial DESC LIMIT 1", (name,)).fetchone()
            return read_job(row) if row is not None else None

    def holders(self) -> list[Job]:
        """Return the jobs whose folder stood in inputs/ when it was last seen, not claimed."""
        with self.reading() as db:
            rows = db.execute("SELECT * FROM jobs WHERE holds_name = 1 ORDER BY serial").fetchall()
        return [read_job(row) for row in rows]

    def mark(self, job_id: str, status: Status, reason: str, now_s: float) -> Job:
        """Give an unclaimed job a state and reason, and return it as it is now.

        A job that someone cancelled, or that is claimed, keeps its state: intake may be a moment behind.
        """
        with self.writing("mark") as db:
            db.execute(
                "UPDATE jobs SET status = ?, reason = ?, changed_s = ?, reported = 0, finished_s = ? WHERE id = ?"
                " AND status IN ('waiting', 'stalled', 'invalid') AND claiming = 0 AND (status, reason) != (?, ?)",
                (status, reason, now_s, now_s if status.is_final else None, job_id, status, reason),
            )
            return job_of(db, job_id)

    def release(self, job_id: str, reason: str, now_s: float) -> Job:
        """The folder of an unclaimed job is gone: an open job becomes `cancelled`, and its name is free again."""
        with self.writing("release") as db:
            db.execute(
                "UPDATE jobs SET status = 'cancelled', reason = ?, changed_s = ?, finished_s = ?, reported = 0"
                " WHERE id = ? AND status IN ('waiting', 'stalled', 'invalid') AND claiming = 0",
                (reason, now_s, now_s, job_id),
            )
            db.execute("UPDATE jobs SET holds_name = 0 WHERE id = ? AND claiming = 0", (job_id,))
            return job_of(db, job_id)

    # Claims: first the intent, then the rename, then the queue

    def begin_claim(
        self, job_id: str, manifest: str, looks: Sequence[Look], files: Mapping[str, str], origin: str, now_s: float
    ) -> None:
        """Record that this job is about to be claimed.

        Parameters
        ----------
        looks : every picture to make, each with its seed set.
        files : file name -> sha256 of the verified copies.
        origin : digest of the folder's fingerprint, to know this very content again.
        """
        if any(look.options.seed is None for look in looks):
            raise ValueError("Every look needs its seed before it is claimed.")
        with self.writing("begin_claim") as db:
            db.execute(
                "UPDATE jobs SET claiming = 1, manifest = ?, files = ?, origin = ?, changed_s = ? WHERE id = ?"
                " AND holds_name = 1",
                (manifest, json.dumps(dict(files), ensure_ascii=False), origin, now_s, job_id),
            )
            db.execute("DELETE FROM looks WHERE job_id = ?", (job_id,))
            db.executemany(
                "INSERT INTO looks (job_id, position, key, look, status) VALUES (?, ?, ?, ?, 'queued')",
                [(job_id, position, look.key, pack_look(look)) for position, look in enumerate(looks)],
            )

    def finish_claim(self, job_id: str, now_s: float) -> Job:
        """The upload is safe in the spool: the job is `queued`, or `cancelled` if someone asked for that meanwhile."""
        with self.writing("finish_claim") as db:
            total = count_looks(db, job_id)
            db.execute(
                "UPDATE jobs SET claiming = 0, holds_name = 0, status = 'queued', reason = ?, claimed_s = ?,"
                " changed_s = ?, turn = ?, reported = 0 WHERE id = ? AND claiming = 1",
                (f"{pictures(total)} to make", now_s, now_s, next_turn(db), job_id),
            )
            drop_if_cancelling(db, job_id)
            return settle(db, job_id, now_s) or job_of(db, job_id)

    def abandon_claim(self, job_id: str, reason: str, now_s: float) -> Job:
        """The folder changed before it was taken: the job waits again."""
        with self.writing("abandon_claim") as db:
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
        with self.reading() as db:
            rows = db.execute("SELECT * FROM jobs WHERE claiming = 1 ORDER BY serial").fetchall()
        return [(read_job(row), str(row["origin"])) for row in rows]

    def taken(self, name: str, origin: str) -> bool:
        """Was this very content already claimed from this folder? True for uploads that were copied, not moved."""
        with self.reading() as db:
            query = "SELECT 1 FROM jobs WHERE name = ? AND origin = ? AND claimed_s IS NOT NULL"
            return db.execute(query, (name, origin)).fetchone() is not None

    # Looks

    def looks(self, job_id: str) -> list[LookRecord]:
        """Return the looks of a job in the order of its manifest; none before it is claimed."""
        with self.reading() as db:
            rows = db.execute("SELECT * FROM looks WHERE job_id = ? ORDER BY position", (job_id,)).fetchall()
        return [read_look(row) for row in rows]

    def next_looks(self, now_s: float, limit: int, exclude: Collection[tuple[str, str]] = ()) -> list[LookRecord]:
        """Return up to `limit` queued looks that are due, fairest first; none while paused.

        Jobs take turns: the one served longest ago (or queued, if never served) comes first, and gives one look
        before the next job does. Within a job, looks come in the manifest's order. `exclude` holds (job id, look key).
        """
        skipped = set(exclude)
        hands: list[list[LookRecord]] = []
        with self.reading() as db:
            if note_of(db, PAUSED) is not None:
                return []
            order = "SELECT id FROM jobs WHERE status IN ('queued', 'running') ORDER BY turn, serial"
            for (job_id,) in db.execute(order):
                due = db.execute(
                    "SELECT * FROM looks WHERE job_id = ? AND status = 'queued' AND not_before_s <= ?"
                    " ORDER BY position LIMIT ?",
                    (job_id, now_s, limit + len(skipped)),
                ).fetchall()
                hand = [read_look(row) for row in due if (job_id, row["key"]) not in skipped]
                hands += [hand] if hand else []
                if len(hands) >= limit:
                    break
        rounds = [hand[turn] for turn in range(limit) for hand in hands if turn < len(hand)]
        return rounds[:limit]

    def start_attempt(self, job_id: str, key: str, now_s: float) -> LookRecord | None:
        """Count one more attempt, before the engine is asked. None if the look is not queued (cancelled meanwhile)."""
        with self.writing("start_attempt") as db:
            started = db.execute(
                "UPDATE looks SET status = 'running', attempts = attempts + 1, reason = ''"
                " WHERE job_id = ? AND key = ? AND status = 'queued'",
                (job_id, key),
            ).rowcount
            if not started:
                return None
            db.execute(
                "UPDATE jobs SET status = 'running', reason = ?, started_s = coalesce(started_s, ?), changed_s = ?,"
                " turn = ? WHERE id = ?",
                (progress(db, job_id), now_s, now_s, next_turn(db), job_id),
            )
            return look_of(db, job_id, key)

    def finish_look(self, job_id: str, key: str, result: LookResult, now_s: float) -> None:
        """The picture of this look is in outputs/. Also right for one found there after a crash."""
        with self.writing("finish_look") as db:
            values = (LookStatus.DONE, "", pack_result(result), job_id, key)
            db.execute("UPDATE looks SET status = ?, reason = ?, result = ? WHERE job_id = ? AND key = ?", values)
            touch(db, job_id, now_s)

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
        with self.writing("put_back") as db:
            db.execute(
                "UPDATE looks SET status = 'queued', reason = ?, not_before_s = ?, deaths = deaths + ?,"
                " attempts = attempts - ? WHERE job_id = ? AND key = ? AND status = 'running'",
                (reason, not_before_s, int(death), int(not attempt_counts), job_id, key),
            )
            drop_if_cancelling(db, job_id)
            touch(db, job_id, now_s)

    def fail_look(self, job_id: str, key: str, reason: str, now_s: float) -> None:
        """Give a look up. Its neighbours go on."""
        with self.writing("fail_look") as db:
            values = (LookStatus.FAILED, reason, job_id, key)
            db.execute("UPDATE looks SET status = ?, reason = ? WHERE job_id = ? AND key = ?", values)
            touch(db, job_id, now_s)

    def settle_job(self, job_id: str, now_s: float) -> Job | None:
        """Give a job its final state once no look is queued or running; the job if it just became final, else None."""
        with self.writing("settle_job") as db:
            return settle(db, job_id, now_s)

    def running_looks(self) -> list[LookRecord]:
        """Return every look marked running: after a crash, those that were in hand."""
        with self.reading() as db:
            rows = db.execute("SELECT * FROM looks WHERE status = 'running' ORDER BY job_id, position").fetchall()
        return [read_look(row) for row in rows]

    def unreported(self) -> list[Job]:
        """Return the final jobs whose last state was not yet written to outputs/ (`confirm_report`)."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE reported = 0 AND status IN ('done', 'failed', 'cancelled') ORDER BY serial"
            ).fetchall()
        return [read_job(row) for row in rows]

    def confirm_report(self, job_id: str) -> None:
        """The report of this final job is complete on disk."""
        with self.writing("confirm_report") as db:
            db.execute("UPDATE jobs SET reported = 1 WHERE id = ?", (job_id,))

    # People

    def retry(self, job_id: str, now_s: float) -> Job:
        """Give failed and cancelled looks a fresh start; check an `invalid` or `stalled` upload again.

        Raises ConfigError where there is nothing to try again.
        """
        with self.writing("retry") as db:
            job = known_job(db, job_id)
            if job.claimed_s is None:
                return retry_upload(db, job, now_s)
            again = db.execute(
                "UPDATE looks SET status = 'queued', reason = '', attempts = 0, deaths = 0, not_before_s = 0"
                " WHERE job_id = ? AND status IN ('failed', 'cancelled')",
                (job_id,),
            ).rowcount
            if not again:
                raise ConfigError(f"Job '{job_id}' is {job.status}: it has no failed or cancelled look to retry.")
            db.execute(
                "UPDATE jobs SET cancelling = 0, reported = 0, finished_s = NULL, reason = ?, changed_s = ?,"
                " status = iif(status = 'running', 'running', 'queued'),"
                " started_s = iif(status = 'running', started_s, NULL), turn = ? WHERE id = ?",
                (f"trying {pictures(again)} again", now_s, next_turn(db), job_id),
            )
            return job_of(db, job_id)

    def cancel(self, job_id: str, now_s: float) -> Job:
        """Start no more looks of this job. One in hand is finished first; until then the job stays `running`.

        Raises ConfigError if the job is unknown or already final.
        """
        with self.writing("cancel") as db:
            job = known_job(db, job_id)
            if job.status.is_final:
                raise ConfigError(f"Job '{job_id}' is already {job.status}: there is nothing to cancel.")
            db.execute(
                "UPDATE jobs SET cancelling = (claiming OR claimed_s IS NOT NULL), reported = 0, changed_s = ?,"
                " reason = 'cancelled by request; the picture in hand is finished first' WHERE id = ?",
                (now_s, job_id),
            )
            db.execute(
                "UPDATE jobs SET status = 'cancelled', reason = 'cancelled by request', finished_s = ?"
                " WHERE id = ? AND cancelling = 0",
                (now_s, job_id),
            )
            drop_if_cancelling(db, job_id)
            return settle(db, job_id, now_s) or job_of(db, job_id)

    def pause(self, reason: str, now_s: float) -> None:
        """Start no look until `resume`. Looks in hand are finished."""
        with self.writing("pause") as db:
            set_note(db, PAUSED, reason)
            set_note(db, "paused_s", repr(now_s))

    def resume(self, now_s: float) -> None:
        """Start looks again."""
        with self.writing("resume") as db:
            db.execute("DELETE FROM notes WHERE key = ?", (PAUSED,))
            set_note(db, "resumed_s", repr(now_s))

    def paused(self) -> str | None:
        """Return why no look is started, or None."""
        return self.note(PAUSED)

    def put_note(self, key: str, value: str) -> None:
        """Keep one small fact for `status` and for the next start."""
        with self.writing("put_note") as db:
            set_note(db, key, value)

    def note(self, key: str) -> str | None:
        """Return a fact kept by `put_note`, or None."""
        with self.reading() as db:
            return note_of(db, key)
