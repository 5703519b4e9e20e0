"""The ledger: one state for every job and look, fair turns, and nothing half-written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.domain.job import ClaimIntent, Job, LookResult, LookStatus, Status
from fastfit_watch.domain.look import Category, Framing, ImageFormat, Look, MaskMode, SamplingOptions
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.failpoints import VARIABLE

RESULT = LookResult("anna.l0.png", "ab" * 32, 1024, 768, {"denoise": 1.5}, None, "cpu", {"torch": "2.11"})


def make_looks(count: int) -> list[Look]:
    return [Look("anna.jpg", f"l{n}", {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=n)) for n in range(count)]


def queue_job(ledger: Ledger, name: str, looks: int, now_s: float = 1.0) -> Job:
    job = ledger.find_or_create_unclaimed(name, now_s)
    ledger.begin_claim(
        ClaimIntent(job.id, "outfit.yaml", make_looks(looks), {"anna.jpg": "00"}, f"origin of {name}"), now_s
    )
    return ledger.finish_claim(job.id, now_s)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db")) as opened:
        yield opened


def work(ledger: Ledger, job_id: str, key: str, now_s: float = 2.0) -> None:
    assert ledger.start_attempt(job_id, key, now_s) is not None
    ledger.finish_look(job_id, key, RESULT, now_s)


def known(ledger: Ledger, job_id: str) -> Job:
    job = ledger.job(job_id)
    assert job is not None
    return job


def test_a_name_that_comes_again_gets_a_new_id(ledger: Ledger) -> None:
    assert (
        ledger.find_or_create_unclaimed("spring", 1.0).id
        == ledger.find_or_create_unclaimed("spring", 2.0).id
        == "spring"
    )
    assert ledger.find_or_create_unclaimed("spring-2", 2.5).id == "spring-2"
    queue_job(ledger, "spring", 1)
    assert ledger.find_or_create_unclaimed("spring", 3.0).id == "spring-3"
    assert [job.id for job in ledger.unclaimed_jobs()] == ["spring-2", "spring-3"]
    newest = ledger.newest_job_named("spring")
    assert newest is not None and newest.id == "spring-3"


def test_every_field_of_a_look_and_its_result_survives(ledger: Ledger) -> None:
    options = SamplingOptions(7, 2**63 - 1, 1.5, MaskMode.WORN, Framing.PASTE_BACK, ImageFormat.WEBP)
    look = Look("ben é.jpg", "gala", {Category.DRESS: "gown.jpg", Category.BAG: "clutch.png"}, options)
    ledger.find_or_create_unclaimed("spring", 1.0)
    ledger.begin_claim(ClaimIntent("spring", "outfit.yml", [look], {"ben é.jpg": "12"}, "origin"), 2.0)
    ledger.finish_claim("spring", 2.0)
    ledger.start_attempt("spring", look.key, 3.0)
    ledger.finish_look("spring", look.key, RESULT, 4.0)
    ledger.close()
    (record,) = ledger.looks("spring")
    assert (record.look, record.result, record.status, record.attempts) == (look, RESULT, LookStatus.DONE, 1)
    job = known(ledger, "spring")
    assert (job.manifest, job.files, job.claimed_s, job.started_s) == ("outfit.yml", {"ben é.jpg": "12"}, 2.0, 3.0)


def test_a_look_without_a_seed_is_refused(ledger: Ledger) -> None:
    ledger.find_or_create_unclaimed("spring", 1.0)
    with pytest.raises(ValueError, match="seed"):
        ledger.begin_claim(ClaimIntent("spring", "outfit.yaml", [Look("a.jpg", "l", {})], {}, "origin"), 1.0)


def test_turns_go_round_so_a_big_job_starves_nobody(ledger: Ledger) -> None:
    for name, looks in (("big", 50), ("small", 1), ("two", 2)):
        queue_job(ledger, name, looks)
    order = []
    for _ in range(6):
        (record,) = ledger.next_looks(2.0, 1)
        ledger.start_attempt(record.job_id, record.look.key, 2.0)
        order.append(record.job_id)
    assert order == ["big", "small", "two", "big", "two", "big"]


def test_several_looks_are_dealt_one_per_job_and_round(ledger: Ledger) -> None:
    queue_job(ledger, "a", 3)
    queue_job(ledger, "b", 1)
    dealt = [(record.job_id, record.position) for record in ledger.next_looks(2.0, 3)]
    assert dealt == [("a", 0), ("b", 0), ("a", 1)]
    rest = ledger.next_looks(2.0, 2, exclude=[("a", "anna.l0"), ("b", "anna.l0")])
    assert [(record.job_id, record.position) for record in rest] == [("a", 1), ("a", 2)]


def test_backoff_and_pause_hold_looks_back(ledger: Ledger) -> None:
    queue_job(ledger, "a", 1)
    ledger.start_attempt("a", "anna.l0", 2.0)
    ledger.put_back("a", "anna.l0", "engine died", 10.0, 3.0, death=True)
    assert ledger.next_looks(9.9, 1) == []
    (record,) = ledger.next_looks(10.0, 1)
    assert (record.attempts, record.deaths, record.reason) == (1, 1, "engine died")
    ledger.requests.pause("disk full", 10.0)
    assert (ledger.requests.paused(), ledger.next_looks(10.0, 1)) == ("disk full", [])
    ledger.requests.resume(11.0)
    assert ledger.requests.paused() is None and len(ledger.next_looks(11.0, 1)) == 1


def test_an_attempt_that_does_not_count_is_taken_back(ledger: Ledger) -> None:
    queue_job(ledger, "a", 1)
    ledger.start_attempt("a", "anna.l0", 2.0)
    ledger.put_back("a", "anna.l0", "stopping", 0.0, 3.0, attempt_counts=False)
    assert ledger.looks("a")[0].attempts == 0


def test_the_final_state_follows_from_the_looks(ledger: Ledger) -> None:
    queue_job(ledger, "a", 3)
    work(ledger, "a", "anna.l0")
    assert ledger.settle_job("a", 3.0) is None
    assert known(ledger, "a").reason == "1 of 3 pictures made"
    for key in ("anna.l1", "anna.l2"):
        ledger.start_attempt("a", key, 3.0)
        ledger.fail_look("a", key, "the engine died three times", 4.0)
    job = ledger.settle_job("a", 5.0)
    assert job is not None and job == known(ledger, "a")
    assert (job.status, job.finished_s) == (Status.FAILED, 5.0)
    assert job.reason == "2 of 3 looks failed: anna.l1, anna.l2: the engine died three times"
    assert ledger.settle_job("a", 6.0) is None, "a final job becomes final once"
    assert ledger.settle_job("unknown", 6.0) is None


def test_a_report_of_what_was_true_before_a_retry_is_not_the_last_word(ledger: Ledger) -> None:
    queue_job(ledger, "a", 1)
    ledger.start_attempt("a", "anna.l0", 2.0)
    ledger.fail_look("a", "anna.l0", "nobody is in the picture", 2.0)
    ledger.settle_job("a", 2.0)
    (failed,) = ledger.unreported()
    ledger.requests.retry("a", 3.0)
    assert not ledger.confirm_report(failed), "it is queued again"
    work(ledger, "a", "anna.l0")
    ledger.settle_job("a", 4.0)
    assert not ledger.confirm_report(failed), "it is done meanwhile"
    (done,) = ledger.unreported()
    assert done.status is Status.DONE and ledger.confirm_report(done) and ledger.unreported() == []


def test_many_failures_stay_readable(ledger: Ledger) -> None:
    queue_job(ledger, "a", 16)
    for number in range(16):
        ledger.start_attempt("a", f"anna.l{number}", 2.0)
        ledger.fail_look("a", f"anna.l{number}", "bad" if number % 2 else f"worse {number}", 2.0)
    job = ledger.settle_job("a", 3.0)
    assert job is not None and job.reason == (
        "16 of 16 looks failed: anna.l0: worse 0; anna.l1, anna.l3, anna.l5, anna.l7, anna.l9 and 3 more: bad; "
        "anna.l2: worse 2; anna.l4: worse 4; anna.l6: worse 6; and 4 more"
    )


def test_retry_gives_failed_looks_a_fresh_start(ledger: Ledger) -> None:
    queue_job(ledger, "a", 2)
    work(ledger, "a", "anna.l0")
    ledger.start_attempt("a", "anna.l1", 2.0)
    ledger.put_back("a", "anna.l1", "died", 99.0, 2.0, death=True)
    ledger.start_attempt("a", "anna.l1", 2.0)
    ledger.fail_look("a", "anna.l1", "died", 3.0)
    ledger.settle_job("a", 3.0)
    assert [job.id for job in ledger.unreported()] == ["a"]
    assert ledger.confirm_report(known(ledger, "a"))
    assert ledger.unreported() == []
    assert ledger.requests.retry("a", 4.0).status is Status.QUEUED
    (record,) = ledger.next_looks(4.0, 5)
    assert (record.look.key, record.attempts, record.deaths) == ("anna.l1", 0, 0)
    work(ledger, "a", "anna.l1")
    job = ledger.settle_job("a", 5.0)
    assert job is not None and job.status is Status.DONE
    assert [job.id for job in ledger.unreported()] == ["a"], "the second end is reported too"
    with pytest.raises(ConfigError, match="no failed or cancelled look"):
        ledger.requests.retry("a", 6.0)


def test_cancel_finishes_the_picture_in_hand(ledger: Ledger) -> None:
    queue_job(ledger, "a", 3)
    ledger.start_attempt("a", "anna.l0", 2.0)
    assert ledger.requests.cancel("a", 3.0).status is Status.RUNNING
    assert ledger.next_looks(3.0, 5) == []
    assert ledger.start_attempt("a", "anna.l1", 3.0) is None, "picked a moment before the cancel"
    ledger.finish_look("a", "anna.l0", RESULT, 4.0)
    job = ledger.settle_job("a", 4.0)
    assert job is not None and (job.status, job.reason) == (
        Status.CANCELLED,
        "cancelled by request; 1 of 3 pictures made",
    )
    with pytest.raises(ConfigError, match="already cancelled"):
        ledger.requests.cancel("a", 5.0)
    assert ledger.requests.retry("a", 6.0).status is Status.QUEUED
    assert len(ledger.next_looks(6.0, 5)) == 2


def test_cancel_drops_a_look_that_comes_back(ledger: Ledger) -> None:
    queue_job(ledger, "a", 1)
    ledger.start_attempt("a", "anna.l0", 2.0)
    ledger.requests.cancel("a", 3.0)
    ledger.put_back("a", "anna.l0", "engine died", 0.0, 4.0)
    job = ledger.settle_job("a", 4.0)
    assert job is not None and job.status is Status.CANCELLED


def test_cancel_of_a_queued_job_is_final_at_once(ledger: Ledger) -> None:
    queue_job(ledger, "a", 2)
    assert ledger.requests.cancel("a", 3.0).status is Status.CANCELLED
    assert [job.id for job in ledger.unreported()] == ["a"]


def test_a_cancelled_upload_stays_cancelled_until_someone_retries(ledger: Ledger) -> None:
    ledger.find_or_create_unclaimed("a", 1.0)
    ledger.requests.cancel("a", 2.0)
    assert ledger.set_unclaimed_status("a", Status.WAITING, "missing anna.jpg", 3.0).status is Status.CANCELLED
    assert ledger.find_or_create_unclaimed("a", 4.0).id == "a", "its folder still stands"
    assert ledger.requests.retry("a", 5.0).status is Status.WAITING
    ledger.requests.cancel("a", 6.0)
    assert ledger.close_missing("a", "removed", 7.0).reason == "cancelled by request"
    with pytest.raises(ConfigError, match="Upload it again"):
        ledger.requests.retry("a", 8.0)
    assert ledger.find_or_create_unclaimed("a", 9.0).id == "a-2"


def test_a_cancel_during_the_claim_is_kept(ledger: Ledger) -> None:
    ledger.find_or_create_unclaimed("a", 1.0)
    ledger.begin_claim(ClaimIntent("a", "outfit.yaml", make_looks(2), {}, "origin"), 1.0)
    ledger.requests.cancel("a", 1.5)
    assert ledger.finish_claim("a", 2.0).status is Status.CANCELLED
    assert ledger.next_looks(3.0, 5) == []


def test_an_abandoned_claim_waits_and_leaves_no_looks(ledger: Ledger) -> None:
    ledger.find_or_create_unclaimed("a", 1.0)
    ledger.begin_claim(ClaimIntent("a", "outfit.yaml", make_looks(2), {"anna.jpg": "00"}, "origin"), 1.0)
    ((pending, origin),) = ledger.pending_claims()
    assert (pending.id, origin) == ("a", "origin")
    assert ledger.next_looks(2.0, 1) == [], "a claim that is not finished is no work"
    job = ledger.abandon_claim("a", "changed while it was read", 2.0)
    assert (job.status, job.files, ledger.looks("a"), ledger.pending_claims()) == (Status.WAITING, {}, [], [])
    assert not ledger.was_claimed_by_copy("a", "origin")


def test_content_that_was_copied_is_known_again(ledger: Ledger) -> None:
    queue_job(ledger, "a", 1)
    assert ledger.was_claimed_by_copy("a", "origin of a")
    assert not ledger.was_claimed_by_copy("a", "another origin") and not ledger.was_claimed_by_copy("b", "origin of a")


def test_jobs_are_listed_newest_last(ledger: Ledger) -> None:
    for number, name in enumerate("abc"):
        ledger.find_or_create_unclaimed(name, float(number))
    ledger.set_unclaimed_status("a", Status.INVALID, "outfit.yaml:3: unknown key", 9.0)
    assert [job.id for job in ledger.jobs()] == ["b", "c", "a"]
    assert [job.id for job in ledger.jobs(limit=2)] == ["c", "a"]
    assert [job.id for job in ledger.jobs([Status.WAITING])] == ["b", "c"]


def test_a_mark_that_changes_nothing_writes_nothing(ledger: Ledger) -> None:
    ledger.find_or_create_unclaimed("a", 1.0)
    ledger.set_unclaimed_status("a", Status.WAITING, "missing anna.jpg", 2.0)
    assert ledger.set_unclaimed_status("a", Status.WAITING, "missing anna.jpg", 3.0).changed_s == 2.0


def test_another_writer_is_noticed(ledger: Ledger) -> None:
    before = ledger.database.external_version()
    ledger.put_note("engine", "ready")
    assert ledger.database.external_version() == before, "our own writing is no news"
    with closing(Ledger(ledger.path)) as other:
        other.put_note("engine", "loading")
    assert ledger.database.external_version() != before
    assert ledger.note("engine") == "loading"


def test_reading_only_never_makes_a_ledger(tmp_path: Path, ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="no ledger"):
        Ledger(tmp_path / "other.db", read_only=True)
    ledger.find_or_create_unclaimed("a", 1.0)
    with closing(Ledger(ledger.path, read_only=True)) as reader:
        assert [job.id for job in reader.jobs()] == ["a"]
        with pytest.raises(StorageError):
            reader.find_or_create_unclaimed("b", 1.0)


def test_a_ledger_of_another_version_is_refused(ledger: Ledger) -> None:
    ledger.close()
    with sqlite3.connect(ledger.path) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(ConfigError, match="format 99"):
        Ledger(ledger.path)


def test_a_damaged_ledger_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match=r"ledger\.db"):
        Ledger(tmp_path / "ledger.db")


def test_a_ledger_removed_beneath_us_begins_anew(ledger: Ledger) -> None:
    ledger.find_or_create_unclaimed("a", 1.0)
    for file in ledger.path.parent.glob("ledger.db*"):
        file.unlink()
    assert ledger.find_or_create_unclaimed("b", 2.0).id == "b"
    with closing(Ledger(ledger.path)) as other:
        assert [job.id for job in other.jobs()] == ["b"]


@pytest.mark.parametrize("code", ["ENOSPC", "EIO", "EDQUOT"])
def test_a_full_disk_changes_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    queue_job(ledger, "a", 1)
    monkeypatch.setenv(VARIABLE, f"ledger.start_attempt.before:1:{code}")
    with pytest.raises(StorageError, match="ledger"):
        ledger.start_attempt("a", "anna.l0", 2.0)
    monkeypatch.delenv(VARIABLE)
    assert (ledger.looks("a")[0].attempts, known(ledger, "a").status) == (0, Status.QUEUED)
    assert ledger.start_attempt("a", "anna.l0", 3.0) is not None


def test_sqlite_itself_running_out_of_room_is_a_storage_error(ledger: Ledger) -> None:
    with ledger.database.reading() as db:
        db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match="full"):
        ledger.put_note("big", "x" * 1_000_000)
    assert ledger.note("big") is None


@pytest.mark.parametrize(("moment", "attempts"), [("before", 0), ("after", 1)])
def test_kill_9_around_the_commit(ledger: Ledger, moment: str, attempts: int) -> None:
    queue_job(ledger, "a", 1)
    program = (
        "import sys; from pathlib import Path; from fastfit_watch.storage.ledger import Ledger;"
        "Ledger(Path(sys.argv[1])).start_attempt('a', 'anna.l0', 2.0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ledger.path)],
        env={**os.environ, VARIABLE: f"ledger.start_attempt.{moment}:1"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert ledger.looks("a")[0].attempts == attempts
    assert len(ledger.running_looks()) == attempts


def test_two_writers_never_start_one_look_twice(ledger: Ledger) -> None:
    queue_job(ledger, "a", 40)
    started: list[str] = []

    def take(own: Ledger) -> None:
        while records := own.next_looks(2.0, 1):
            began = [own.start_attempt(record.job_id, record.look.key, 2.0) for record in records]
            started.extend(record.look.key for record in began if record is not None)

    with closing(Ledger(ledger.path)) as other:
        threads = [threading.Thread(target=take, args=(own,)) for own in (ledger, ledger, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(started) == len(set(started)) == 40


def test_ten_thousand_jobs_stay_fast(tmp_path: Path) -> None:
    """One deal among them costs hardly more than one between two jobs."""
    few_s, many_s = (_deals_s(Ledger(tmp_path / f"{count}.db"), count) for count in (2, 10_000))
    assert many_s < 10 * few_s


def _deals_s(ledger: Ledger, count: int) -> float:
    """Processor time of 100 deals in a ledger of so many jobs, in seconds."""
    with ledger.database.writing("test") as db:
        db.executemany(
            "INSERT INTO jobs (id, name, status, reason, first_seen_s, changed_s, claimed_s, holds_name, turn, batch)"
            " VALUES (?, ?, 'queued', '', 1, 1, 1, 0, ?, 1)",
            [(f"j{n}", f"j{n}", n) for n in range(count)],
        )
        db.execute("INSERT INTO batches VALUES (1, '', 0, 1, 0)")
        db.executemany(
            "INSERT INTO looks (job_id, position, key, look, status)"
            ' VALUES (?, 0, \'k\', \'{"person": "a", "name": "l", "garments": {}, "options": {"steps": 30,'
            ' "seed": 1, "guidance": 2.5, "mask": "full", "framing": "crop", "format": "png"}}\', \'queued\')',
            [(f"j{n}",) for n in range(count)],
        )
    began_s = time.thread_time()
    for _ in range(100):
        assert [record.job_id for record in ledger.next_looks(2.0, 2)] == ["j0", "j1"]
    spent_s = time.thread_time() - began_s
    ledger.close()
    return spent_s
