"""Records the looks whose picture the content filter withheld, and what a person decided about them."""

from __future__ import annotations

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import Job, LookRecord, LookResult, LookStatus
from fastfit_watch.storage.database import Database
from fastfit_watch.storage.rows import job_of, known_job, look_of, pack_result, read_look
from fastfit_watch.storage.transitions import final_status, record_progress


class Review:
    """Reads and writes withheld looks. `ledger.review`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def withhold_look(self, job_id: str, key: str, reason: str, now_s: float) -> None:
        """The picture of this look is made, and kept back for review."""
        with self._database.writing("withhold_look") as db:
            values = (LookStatus.WITHHELD, reason, job_id, key)
            db.execute("UPDATE looks SET status = ?, reason = ? WHERE job_id = ? AND key = ?", values)
            record_progress(db, job_id, now_s)

    def withheld_looks(self, job_id: str) -> list[LookRecord]:
        """Return the looks of a job that are withheld now. Raises ConfigError if the job is unknown."""
        with self._database.reading() as db:
            known_job(db, job_id)
            rows = db.execute(
                "SELECT * FROM looks WHERE job_id = ? AND status = 'withheld' ORDER BY position", (job_id,)
            ).fetchall()
        return [read_look(row) for row in rows]

    def judge_withheld(self, job_id: str, key: str, result: LookResult | None, now_s: float) -> Job:
        """Someone has looked at a withheld picture: released, with its result, or discarded (None).

        A job that was final is reported again. Raises ConfigError if the look is not withheld.
        """
        with self._database.writing("judge_withheld") as db:
            job = known_job(db, job_id)
            record = look_of(db, job_id, key)
            if record.status is not LookStatus.WITHHELD:
                raise ConfigError(f"The look '{key}' of job '{job_id}' is {record.status}, not withheld.")
            status, reason = (LookStatus.DONE, "") if result else (LookStatus.FAILED, "discarded after review")
            db.execute(
                "UPDATE looks SET status = ?, reason = ?, result = ? WHERE job_id = ? AND key = ?",
                (status, reason, pack_result(result) if result else None, job_id, key),
            )
            if job.status.is_final:
                final, sentence = final_status(db, job_id)
                db.execute(
                    "UPDATE jobs SET status = ?, reason = ?, changed_s = ?, reported = 0 WHERE id = ?",
                    (final, sentence, now_s, job_id),
                )
            else:
                record_progress(db, job_id, now_s)
            return job_of(db, job_id)
