"""The `release` command: what the content filter kept back is shown, released into `outputs/`, or discarded.

Withheld pictures lie in the spool, `inputs/.spool/jobs/JOB/withheld/`, which nobody but the daemon's user can enter. A
picture is released in this order: it is written to `outputs/`, then the ledger says so, then the withheld copy goes. So
whatever is cut short can be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fastfit_watch.config.paths import Paths
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import Job, LookRecord, LookResult
from fastfit_watch.domain.receipts import withheld_receipt
from fastfit_watch.reporting.verification import find_proven_result
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths
from fastfit_watch.system.atomic_write import make_folder, write_bytes


def list_withheld(paths: Paths, ledger: Ledger, job_id: str) -> None:
    """Print the withheld looks of a job: the look, why, and where its picture lies."""
    records = ledger.review.withheld_looks(job_id)
    if not records:
        print(f"{job_id}: nothing is withheld")
    for record in records:
        print(f"{record.look.key}: {record.reason}\n  {_picture(paths, record)}")


def decide(paths: Paths, ledger: Ledger, job_id: str, keys: Sequence[str], *, discard: bool) -> None:
    """Release these looks into `outputs/`, or remove their pictures for good; says so for each.

    Raises
    ------
    ConfigError : a look is not withheld; nothing is done then. Or a picture is gone or was changed.
    StorageError : the disk is full.
    """
    withheld = {record.look.key: record for record in ledger.review.withheld_looks(job_id)}
    wrong = [key for key in keys if key not in withheld]
    if wrong:
        known = f"Withheld are: {', '.join(withheld)}." if withheld else "Nothing of this job is withheld."
        raise ConfigError(f"Not withheld in job '{job_id}': {', '.join(wrong)}.", hint=known)
    for key in dict.fromkeys(keys):
        job = ledger.job(job_id)
        result = None if discard or job is None else _publish(paths, job, withheld[key])
        job = ledger.review.judge_withheld(job_id, key, result, time.time())
        _picture(paths, withheld[key]).unlink(missing_ok=True)
        withheld_receipt(_folder(paths, job_id), key).unlink(missing_ok=True)
        print(f"{key}: {'discarded' if discard else 'released'}; {job.id} is {job.status.value}: {job.reason}")


def _publish(paths: Paths, job: Job, record: LookRecord) -> LookResult:
    """Copy a withheld picture into `outputs/`, and return what its receipt proves of it."""
    picture = _picture(paths, record)
    receipt = withheld_receipt(picture.parent, record.look.key)
    try:
        result = find_proven_result(receipt, picture.parent, job, record)
        data = picture.read_bytes()
    except OSError as error:
        raise ConfigError(f"The withheld picture {picture} cannot be read: {error}.", hint="Make it again.") from error
    if result is None:
        raise ConfigError(f"{picture} is not the picture that was made.", hint="It was changed since; discard it.")
    folder = paths.outputs / record.job_id
    make_folder(folder)
    write_bytes(folder / result.file, data)
    return result


def _picture(paths: Paths, record: LookRecord) -> Path:
    return _folder(paths, record.job_id) / f"{record.look.key}.{record.look.options.format.value}"


def _folder(paths: Paths, job_id: str) -> Path:
    return SpoolPaths(paths.inputs).withheld(job_id)
