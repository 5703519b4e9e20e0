"""Compares pictures with what receipts and the ledger say of them."""

from __future__ import annotations

from pathlib import Path

from fastfit_watch.domain.job import Job, LookRecord, LookResult
from fastfit_watch.domain.receipts import read_receipt, subject_of
from fastfit_watch.imaging.provenance import wanted_hashes
from fastfit_watch.imaging.xmp import read_marks
from fastfit_watch.system.disk_errors import STORAGE_ERRNOS
from fastfit_watch.system.folders import hash_file


def find_proven_result(receipt: Path, folder: Path, job: Job, record: LookRecord) -> LookResult | None:
    """Return the result of a look whose picture is whole in `folder`, if its receipt proves that it is this look's.

    A receipt of version 0.1.0 does not name its upload: then the marks in the picture must agree with the ledger.
    Raises OSError where the disk fails.
    """
    try:
        found = read_receipt(receipt.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return None
    except OSError as error:
        if error.errno in STORAGE_ERRNOS:
            raise
        return None
    picture = folder / picture_name(record)
    if found.result.file != picture.name or hash_picture(picture) != found.result.sha256:
        return None
    if found.subject is None:
        return found.result if _marks_agree(picture, job, record) else None
    return found.result if found.subject == subject_of(job, record) else None


def picture_name(record: LookRecord) -> str:
    """Return the file name of a look's picture."""
    return f"{record.look.key}.{record.look.options.format.value}"


def hash_picture(picture: Path) -> str | None:
    """Return the SHA-256 of a picture, None if it cannot be read. Raises OSError where the disk fails."""
    try:
        return hash_file(picture)
    except OSError as error:
        if error.errno in STORAGE_ERRNOS:
            raise
        return None


def _marks_agree(picture: Path, job: Job, record: LookRecord) -> bool:
    """Do the marks in a picture name the seed and the files of this look, as the ledger knows them?"""
    look = record.look
    try:
        marks = read_marks(picture)
    except OSError:
        return False
    files = {"person": look.person, **{slot.value: file for slot, file in look.garments.items()}}
    wanted = {name: job.files.get(file, "unknown") for name, file in files.items()}
    return marks.get("seed") == str(look.options.seed) and wanted_hashes(marks) == wanted
