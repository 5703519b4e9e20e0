"""The ledger of a running 0.1.0 spool is read, and work goes on from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.former_spool import unpack_former_spool

from fastfit_watch.domain.job import LookStatus, Priority, Status
from fastfit_watch.domain.look import Category
from fastfit_watch.domain.receipts import read_receipt
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.outbox import WEBHOOK
from fastfit_watch.storage.spool import SpoolPaths
from fastfit_watch.system.folders import hash_file


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return unpack_former_spool(tmp_path)


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with closing(Ledger(SpoolPaths(home / "inputs").ledger)) as opened:
        yield opened


def test_every_job_and_look_is_known_as_it_was(ledger: Ledger, home: Path) -> None:
    assert {job.id: job.status for job in ledger.jobs()} == {
        "spring": Status.DONE,
        "failed": Status.FAILED,
        "shy": Status.DONE,
        "summer": Status.RUNNING,
        "late": Status.QUEUED,
        "dropped": Status.CANCELLED,
        "open": Status.WAITING,
    }
    late = ledger.job("late")
    assert late is not None and late.priority is Priority.HIGH
    assert [record.status for record in ledger.looks("summer")] == [
        LookStatus.DONE,
        LookStatus.RUNNING,
        LookStatus.RUNNING,
        LookStatus.QUEUED,
    ]
    (failed,) = ledger.looks("failed")
    assert (failed.status, failed.reason, failed.attempts) == (LookStatus.FAILED, "the picture is too dark", 1)
    made = ledger.looks("spring")[1]
    assert made.look.options.seed == 41 and made.look.garments == {Category.UPPER: "shirt.png"}
    assert made.result is not None
    assert made.result.sha256 == hash_file(home / "outputs" / "spring" / made.result.file)
    assert [sent.notification.id for sent in ledger.outbox.posted(WEBHOOK, 9)] == ["id-1"]
    assert ledger.note("seconds_per_step") == "0.5"


def test_work_goes_on_from_it(ledger: Ledger) -> None:
    assert [record.look.key for record in ledger.next_looks(1_800_000_100.0, 9)] == ["anna.look0", "anna.look3"]
    assert ledger.requests.retry("failed", 1_800_000_100.0).status is Status.QUEUED
    assert ledger.find_or_create_unclaimed("spring", 1_800_000_100.0).id == "spring-2"
    assert {record.job_id for record in ledger.running_looks()} == {"summer"}


def test_its_receipts_are_read(home: Path) -> None:
    receipt = SpoolPaths(home / "inputs").receipt("summer", "anna.look1")
    assert read_receipt(receipt.read_text(encoding="utf-8")).result.file == "anna.look1.png"
