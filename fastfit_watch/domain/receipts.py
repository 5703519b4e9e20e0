"""Receipts: what a worker writes down of a finished look before its picture becomes visible, and what that proves.

A receipt names upload, look, options, seed and attempt. It is believed only for the very attempt that the ledger has
in work: after a restored ledger or spool, a receipt of that name may belong to another upload.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fastfit_watch.domain.job import Job, LookRecord, LookResult

_SUBJECT = "subject"


@dataclass(frozen=True)
class ReceiptSubject:
    """What a receipt is about. upload: digest of the claimed files. look: its key. options: with the seed."""

    job_id: str
    upload: str
    look: str
    attempt: int
    options: Mapping[str, object]


@dataclass(frozen=True)
class Receipt:
    """A finished look. subject: None in receipts of version 0.1.0, which say only what was made."""

    result: LookResult
    subject: ReceiptSubject | None


def subject_of(job: Job, record: LookRecord) -> ReceiptSubject:
    """Return what a receipt for the present attempt of this look must be about."""
    claimed = json.dumps([job.manifest, sorted(job.files.items())])
    upload = hashlib.sha256(claimed.encode()).hexdigest()
    return ReceiptSubject(job.id, upload, record.look.key, record.attempts, record.look.options.to_dict())


def withheld_receipt(folder: Path, key: str) -> Path:
    """Return where the worker writes the receipt of a look whose picture is withheld in `folder`."""
    return folder / f"{key}.json"


def receipt_fields(result: LookResult, subject: ReceiptSubject) -> dict[str, object]:
    """Return what is written into a receipt, as JSON's types."""
    return {**asdict(result), _SUBJECT: asdict(subject)}


def read_receipt(text: str) -> Receipt:
    """Read the text of a receipt. Raises ValueError or TypeError if it is none."""
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError("a receipt is a mapping")
    subject = fields.pop(_SUBJECT, None)
    return Receipt(LookResult(**fields), None if subject is None else ReceiptSubject(**subject))
