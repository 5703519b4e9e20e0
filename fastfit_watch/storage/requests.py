"""What people request of jobs and of the queue: one transaction each."""

from __future__ import annotations

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import Job, Priority, Status
from fastfit_watch.storage.database import Database
from fastfit_watch.storage.fair_queue import enqueue
from fastfit_watch.storage.rows import job_of, known_job, note_of, set_note
from fastfit_watch.storage.transitions import drop_if_cancelling, finalise_if_done, retry_looks, retry_upload

PAUSED = "paused"
RUNG_NOTES = "rung "  # and a device: see `rung_notes`


class Requests:
    """Records what people request, by commands and by control files. `ledger.requests`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def retry(self, job_id: str, now_s: float) -> Job:
        """Give failed and cancelled looks a fresh start; check an `invalid` or `stalled` upload again.

        What was learnt about too little memory is forgotten: whoever asks has perhaps made room.

        Raises ConfigError where there is nothing to try again.
        """
        with self._database.writing("retry") as db:
            job = known_job(db, job_id)
            db.execute("DELETE FROM notes WHERE key LIKE ?", (f"{RUNG_NOTES}%",))
            act = retry_upload if job.claimed_s is None else retry_looks
            return act(db, job, now_s)

    def prioritise(self, job_id: str, priority: Priority, now_s: float) -> Job:
        """Serve a job earlier or later than it came. Raises ConfigError if it is unknown or already final."""
        with self._database.writing("prioritise") as db:
            job = known_job(db, job_id)
            if job.status.is_final:
                raise ConfigError(f"Job '{job_id}' is already {job.status}: there is nothing to wait for.")
            db.execute("UPDATE jobs SET priority = ?, changed_s = ? WHERE id = ?", (priority, now_s, job_id))
            if job.status in (Status.QUEUED, Status.RUNNING):
                enqueue(db, job_id, job.first_seen_s)
            return job_of(db, job_id)

    def cancel(self, job_id: str, now_s: float) -> Job:
        """Start no more looks of this job. One in hand is finished first; until then the job stays `running`.

        Raises ConfigError if the job is unknown or already final.
        """
        with self._database.writing("cancel") as db:
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
            return finalise_if_done(db, job_id, now_s) or job_of(db, job_id)

    def pause(self, reason: str, now_s: float) -> None:
        """Start no look until `resume`. Looks in hand are finished."""
        with self._database.writing("pause") as db:
            set_note(db, PAUSED, reason)
            set_note(db, "paused_s", repr(now_s))

    def resume(self, now_s: float) -> None:
        """Start looks again."""
        with self._database.writing("resume") as db:
            db.execute("DELETE FROM notes WHERE key = ?", (PAUSED,))
            set_note(db, "resumed_s", repr(now_s))

    def paused(self) -> str | None:
        """Return why no look is started, or None."""
        with self._database.reading() as db:
            return note_of(db, PAUSED)
