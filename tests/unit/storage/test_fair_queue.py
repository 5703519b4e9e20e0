"""Whose turn it is: nobody waits for all of somebody else's work, whoever uploads, and whatever the clock does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.domain.job import ClaimIntent, Job, LookResult, Priority, Status
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.storage.fair_queue import TOGETHER_S
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.migrations import FORMAT_1
from fastfit_watch.system.failpoints import VARIABLE

RESULT = LookResult("x.png", "ab" * 32, 4, 3, {}, None, "cpu")


class Line:
    """A ledger, and jobs put in line."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path)

    def queue(
        self,
        name: str,
        looks: int = 1,
        *,
        uploader: str = "1000",
        seen_s: float = 1.0,
        priority: Priority = Priority.NORMAL,
    ) -> None:
        wanted = [Look("anna.jpg", f"l{n}", {Category.UPPER: "s.jpg"}, SamplingOptions(seed=n)) for n in range(looks)]
        self.ledger.find_or_create_unclaimed(name, seen_s)
        self.ledger.begin_claim(
            ClaimIntent(name, "outfit.yaml", wanted, {}, f"origin of {name}", uploader=uploader, priority=priority),
            seen_s,
        )
        self.ledger.finish_claim(name, seen_s)

    def serve(self, looks: int) -> str:
        """Hand out and finish so many looks; the first letters of their jobs."""
        served = ""
        for _ in range(looks):
            (record,) = self.ledger.next_looks(2.0, 1)
            self.ledger.start_attempt(record.job_id, record.look.key, 2.0)
            self.ledger.finish_look(record.job_id, record.look.key, RESULT, 2.0)
            self.ledger.settle_job(record.job_id, 2.0)
            served += record.job_id[0]
        return served

    def batches(self) -> int:
        with self.ledger.database.reading() as db:
            (count,) = db.execute("SELECT count(*) FROM batches").fetchone()
            return int(count)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "ledger.db")
    yield made
    made.ledger.close()


def test_another_persons_single_look_is_next_beside_5000(line: Line) -> None:
    line.queue("anna", 5000, uploader="1000")
    line.serve(20)
    line.queue("ben", 1, uploader="1001")
    assert line.serve(3) == "baa"


def test_a_job_that_comes_later_is_next_beside_many_of_the_same_person(line: Line) -> None:
    for number in range(200):
        line.queue(f"a{number}")
    line.serve(20)
    line.queue("late", 1, seen_s=1.0 + 2 * TOGETHER_S)
    assert line.serve(3) == "laa"


def test_what_comes_together_is_one_batch_in_its_order(line: Line) -> None:
    for name in "abc":
        line.queue(name, 2)
    assert line.batches() == 1
    assert line.serve(6) == "abcabc"


def test_batches_of_one_person_do_not_take_turns_from_another(line: Line) -> None:
    for number, name in enumerate("abcd"):
        line.queue(name, 3, uploader="1000", seen_s=100.0 * number)
    line.queue("x", 4, uploader="1001")
    served = line.serve(8)
    assert served.count("x") == 4, "half of the turns, not a fifth"


def test_newcomers_cannot_keep_those_out_who_wait(line: Line) -> None:
    for name in "abc":
        line.queue(name, 20, uploader=name)
    served = ""
    for number in range(12):
        line.queue(f"new{number}", 1, uploader=f"new{number}")
        served += line.serve(2)
    assert all(served.count(name) >= 3 for name in "abc"), served


def test_a_batch_is_forgotten_when_its_last_job_ends(line: Line) -> None:
    line.queue("a", 2)
    line.queue("b", 1, seen_s=100.0)
    line.serve(3)
    assert line.batches() == 0
    line.queue("c")
    line.ledger.requests.cancel("c", 3.0)
    assert line.batches() == 0
    line.ledger.requests.retry("c", 4.0)
    assert (line.batches(), line.serve(1)) == (1, "c")


def test_priorities(line: Line) -> None:
    line.queue("low", 2, uploader="1", priority=Priority.LOW)
    line.queue("normal", 2, uploader="2")
    line.queue("high", 2, uploader="2", priority=Priority.HIGH)
    line.queue("other", 2, uploader="3")
    line.queue("urgent", 1, uploader="4")
    line.ledger.requests.prioritise("urgent", Priority.URGENT, 2.0)
    served = line.serve(9)
    assert served[0] == "u" and served[-2:] == "ll"
    assert served.index("h") < served.index("n") and served[1:3] in ("ho", "oh"), "high overtakes nobody else's job"


def test_an_operators_priority_weighs_more_than_the_manifests(line: Line) -> None:
    line.ledger.find_or_create_unclaimed("a", 1.0)
    line.ledger.requests.prioritise("a", Priority.LOW, 1.0)
    line.queue("a", 1, priority=Priority.HIGH)
    job = line.ledger.job("a")
    assert job is not None and job.priority is Priority.LOW
    line.serve(1)
    with pytest.raises(ConfigError, match="already done"):
        line.ledger.requests.prioritise("a", Priority.HIGH, 2.0)
    with pytest.raises(ConfigError, match="no job"):
        line.ledger.requests.prioritise("b", Priority.HIGH, 2.0)


def test_a_running_job_can_be_moved(line: Line) -> None:
    line.queue("a", 3)
    line.queue("b", 3, uploader="1001")
    line.serve(1)
    line.ledger.requests.prioritise("a", Priority.LOW, 2.0)
    assert line.serve(5) == "bbbaa"
    assert line.batches() == 0


def test_the_line_is_shown_as_it_is_served(line: Line) -> None:
    line.queue("a", 1, uploader="1000")
    line.queue("b", 1, uploader="1000")
    line.queue("c", 1, uploader="1001")
    assert [job.id for job in line.ledger.jobs_in_turn(10)] == ["a", "c", "b"]
    assert [job.id for job in line.ledger.jobs_in_turn(2)] == ["a", "c"]
    assert line.serve(3) == "acb"


def test_a_clock_set_back_does_not_lengthen_a_pause(line: Line) -> None:
    line.queue("a")
    line.ledger.start_attempt("a", "anna.l0", 5000.0)
    line.ledger.put_back("a", "anna.l0", "died", 5010.0, 5000.0)
    assert line.ledger.next_looks(5009.0, 1) == []
    assert len(line.ledger.next_looks(5000.0 - 3600, 1)) == 1, "an hour back: the pause is over, not an hour longer"
    assert len(line.ledger.next_looks(5000.0 + 86400, 1)) == 1


def test_changes_are_seen_whatever_the_clock_says(line: Line) -> None:
    line.queue("future", seen_s=1e10)
    before = line.ledger.database.job_version()
    line.queue("now", seen_s=1.0)
    after = line.ledger.database.job_version()
    assert after > before
    line.ledger.put_note("heartbeat", "1")
    assert line.ledger.database.job_version() == after, "a heartbeat is no news"
    with closing(Ledger(line.ledger.path)) as other:
        other.requests.cancel("now", 2.0)
    assert line.ledger.database.job_version() > after


def test_a_cancel_just_before_the_claim_is_kept(line: Line) -> None:
    line.ledger.find_or_create_unclaimed("a", 1.0)
    line.ledger.requests.cancel("a", 1.0)
    look = Look("anna.jpg", "l", {Category.UPPER: "s.jpg"}, SamplingOptions(seed=1))
    assert not line.ledger.begin_claim(ClaimIntent("a", "outfit.yaml", [look], {}, "origin"), 2.0)
    assert (line.ledger.pending_claims(), line.ledger.looks("a")) == ([], [])


def test_together_is_all_or_nothing_and_one_commit(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    with line.ledger.transaction():
        for name in "abc":
            line.ledger.find_or_create_unclaimed(name, 1.0)
    monkeypatch.setenv(VARIABLE, "ledger.together.before:1:ENOSPC")
    with pytest.raises(StorageError), line.ledger.transaction():
        line.ledger.find_or_create_unclaimed("d", 1.0)
    monkeypatch.delenv(VARIABLE)
    line.ledger.close()
    assert [job.id for job in line.ledger.jobs()] == ["a", "b", "c"]


def test_a_step_that_fails_inside_is_undone_alone(line: Line) -> None:
    line.queue("a")
    with line.ledger.transaction():
        line.ledger.find_or_create_unclaimed("b", 1.0)
        with pytest.raises(ConfigError):
            line.ledger.requests.cancel("nobody", 1.0)
        line.ledger.requests.cancel("a", 1.0)
    assert {job.id: job.status for job in line.ledger.jobs()} == {"a": Status.CANCELLED, "b": Status.WAITING}


@pytest.mark.parametrize("state", ["waiting", "invalid", "stalled", "queued", "running", "done", "failed", "cancelled"])
def test_orders_in_every_state(line: Line, state: str) -> None:
    """What `retry` and `cancel` make of a job in each state; None is a refusal in words."""
    expected: dict[str, tuple[str | None, str | None]] = {
        "waiting": (None, "cancelled"),
        "invalid": ("waiting", "cancelled"),
        "stalled": ("waiting", "cancelled"),
        "queued": (None, "cancelled"),
        "running": (None, "running"),
        "done": (None, None),
        "failed": ("queued", None),
        "cancelled": ("queued", None),
    }

    def bring(name: str) -> None:
        if state in ("waiting", "invalid", "stalled"):
            line.ledger.find_or_create_unclaimed(name, 1.0)
            line.ledger.set_unclaimed_status(name, Status(state), "because", 1.0)
            return
        line.queue(name, 2)
        if state == "cancelled":
            line.ledger.requests.cancel(name, 2.0)
        elif state != "queued":
            for number in range(1 if state == "running" else 2):
                line.ledger.start_attempt(name, f"anna.l{number}", 2.0)
                if state == "done":
                    line.ledger.finish_look(name, f"anna.l{number}", RESULT, 2.0)
                elif state == "failed":
                    line.ledger.fail_look(name, f"anna.l{number}", "died", 2.0)
        line.ledger.settle_job(name, 2.0)

    def answer(name: str, act: str) -> str | None:
        bring(name)
        job = line.ledger.job(name)
        assert job is not None and job.status.value == state
        try:
            changed: Job = getattr(line.ledger.requests, act)(name, 3.0)
        except ConfigError as error:
            assert name in str(error)
            return None
        return changed.status.value

    assert (answer("one", "retry"), answer("two", "cancel")) == expected[state]


def test_pause_holds_every_job_and_resume_gives_them_back(line: Line) -> None:
    line.queue("a")
    line.ledger.requests.prioritise("a", Priority.URGENT, 1.0)
    line.ledger.requests.pause("until noon", 2.0)
    line.ledger.requests.pause("until one", 2.0)
    assert (line.ledger.next_looks(2.0, 1), line.ledger.requests.paused()) == ([], "until one")
    line.ledger.requests.resume(3.0)
    line.ledger.requests.resume(3.0)
    assert line.serve(1) == "a"


def test_a_ledger_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as old:
        for statement in (*FORMAT_1, "PRAGMA user_version = 1"):
            old.execute(statement)
        job = "INSERT INTO jobs (id, name, status, reason, first_seen_s, changed_s, claimed_s, holds_name) VALUES"
        old.execute(f"{job} ('old', 'old', 'queued', '', 1, 1, 1, 0), ('past', 'past', 'done', '', 1, 1, 1, 0)")
        look = (
            '{"person": "a", "name": "l", "garments": {}, "options": {"steps": 30, "seed": 1, "guidance": 2.5,'
            ' "mask": "full", "framing": "crop", "format": "png"}}'
        )
        old.execute(
            "INSERT INTO looks (job_id, position, key, look, status) VALUES ('old', 0, 'k', ?, 'queued')", [look]
        )
        old.commit()
    with pytest.raises(ConfigError, match="Start the daemon"):
        Ledger(path, read_only=True)
    with closing(Ledger(path)) as ledger:
        assert [record.job_id for record in ledger.next_looks(2.0, 1)] == ["old"]
        ledger.start_attempt("old", "k", 2.0)
        ledger.finish_look("old", "k", RESULT, 2.0)
        done = ledger.settle_job("old", 2.0)
        assert done is not None and done.status is Status.DONE
    with closing(Ledger(path, read_only=True)) as ledger:
        assert len(ledger.jobs()) == 2
