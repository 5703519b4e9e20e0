"""The ledger's views: shelves that never reorder, marks that notice every change, and parts of long lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.gallery_fixture import GalleryFixture

from fastfit_watch.domain.job import LookStatus, Status
from fastfit_watch.storage.queries import (
    jobs_on_shelf,
    look_marks,
    look_names,
    newest_jobs,
    read_shelves,
    some_looks,
    some_pictures,
)


@pytest.fixture
def fixture(tmp_path: Path) -> GalleryFixture:
    return GalleryFixture(tmp_path)


def test_a_job_stays_on_its_shelf(fixture: GalleryFixture) -> None:
    for number in range(5):
        fixture.ledger.find_or_create_unclaimed(f"job{number}", 100.0 + number)
    shelves = read_shelves(fixture.ledger, 2)
    assert [(shelf.number, shelf.jobs) for shelf in shelves] == [(1, 2), (2, 2), (3, 1)]
    fixture.ledger.set_unclaimed_status("job0", Status.INVALID, "no manifest", 900.0)
    assert [job.id for job in jobs_on_shelf(fixture.ledger, 1, 2)] == ["job0", "job1"]
    assert read_shelves(fixture.ledger, 2)[0].counts == {Status.INVALID: 1, Status.WAITING: 1}


@pytest.mark.parametrize("now_s", [900.0, 101.5], ids=["later", "clock set back"])
def test_the_mark_of_one_shelf_notices_a_change(fixture: GalleryFixture, now_s: float) -> None:
    for number in range(4):
        fixture.ledger.find_or_create_unclaimed(f"job{number}", 102.0 + number)
    before = [shelf.mark for shelf in read_shelves(fixture.ledger, 2)]
    fixture.ledger.set_unclaimed_status("job3", Status.WAITING, "missing anna.jpg", now_s)
    after = [shelf.mark for shelf in read_shelves(fixture.ledger, 2)]
    assert after[0] == before[0] and after[1] != before[1]


def test_a_picture_moves_the_mark_of_its_page_only(fixture: GalleryFixture) -> None:
    fixture.claim("spring", people=("a.jpg", "b.jpg"), looks=("l1", "l2"))
    before = look_marks(fixture.ledger, "spring", 2)
    fixture.finish("spring", "b.l1")
    after = look_marks(fixture.ledger, "spring", 2)
    assert len(before) == 2 and after[0] == before[0] and after[1] != before[1]
    fixture.ledger.start_attempt("spring", "a.l1", 200.0)
    fixture.ledger.put_back("spring", "a.l1", "out of memory", 0.0, 200.0)
    assert look_marks(fixture.ledger, "spring", 2)[0] != after[0]


def test_parts_of_a_job(fixture: GalleryFixture) -> None:
    fixture.claim("spring", people=("a.jpg", "b.jpg"), looks=("l1", "l2", "l3"))
    assert [record.look.key for record in some_looks(fixture.ledger, "spring", 2, 2)] == ["a.l3", "b.l1"]
    assert look_names(fixture.ledger, "spring", 2) == ["l1", "l2"]
    for key in ("a.l1", "a.l2", "b.l1"):
        fixture.finish("spring", key)
    first = some_pictures(fixture.ledger, "spring", 2, newest=False)
    last = some_pictures(fixture.ledger, "spring", 2, newest=True)
    assert [record.look.key for record in first] == ["a.l1", "a.l2"]
    assert [record.look.key for record in last] == ["b.l1", "a.l2"]
    assert all(record.status is LookStatus.DONE for record in first + last)


def test_the_newest_jobs_of_some_states(fixture: GalleryFixture) -> None:
    for number in range(4):
        fixture.ledger.find_or_create_unclaimed(f"job{number}", 100.0)
        fixture.ledger.set_unclaimed_status(
            f"job{number}", Status.INVALID if number % 2 else Status.STALLED, "why", 200.0 + number
        )
    assert [job.id for job in newest_jobs(fixture.ledger, (Status.INVALID,), 9)] == ["job3", "job1"]
    both = newest_jobs(fixture.ledger, (Status.INVALID, Status.STALLED), 3)
    assert [job.id for job in both] == ["job3", "job2", "job1"]
