"""Retention: what is finished goes after its time, what is not never goes, and nothing else is ever touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastfit_watch.config.settings import Config, RetentionSettings
from fastfit_watch.daemon.retention import RetentionThread, seconds_of
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import ClaimIntent, LookResult, Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import Spool, SpoolPaths
from fastfit_watch.system.failpoints import VARIABLE
from fastfit_watch.system.folders import remove_tree

DAY_S = 86400.0
RESULT = LookResult("x.png", "ab" * 32, 4, 3, {}, None, "cpu")
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from unit.daemon.test_retention import RetentionFixture
fixture = RetentionFixture(Path(sys.argv[1]))
fixture.step()
fixture.step(8 * 86400.0)
"""


class RetentionFixture:
    """A spool with jobs in every state, and retention whose clocks the test moves."""

    def __init__(self, root: Path, **retention: object) -> None:
        settings = RetentionSettings.model_validate({"keep_uploads": "7d", "keep_results": "7d", **retention})
        self.config = Config(
            inputs=root / "inputs", outputs=root / "outputs", retention=settings, limits=Limits(min_free_bytes=0)
        )
        self.config.outputs.mkdir(exist_ok=True, parents=True)
        self.spool = Spool(SpoolPaths(self.config.inputs), self.config.limits)
        self.spool.lock()
        self.ledger = Ledger(self.spool.paths.ledger)
        self.caretaker = RetentionThread(self.config, self.ledger, self.spool)
        self.wall_s, self.clock_s = 1_000_000.0, 0.0

    def add(self, name: str, status: Status = Status.DONE, *, reported: bool = True) -> None:
        """A job, its files, and what intake, dispatch and the announcer make of it."""
        self.ledger.find_or_create_unclaimed(name, self.wall_s)
        look = Look("anna.jpg", "l", {Category.UPPER: "s.jpg"}, SamplingOptions(seed=1))
        for part in ("upload", "snapshot", "receipts", "upload/@eaDir/deep"):
            (self.spool.paths.job(name) / part).mkdir(parents=True)
            (self.spool.paths.job(name) / part / "file").write_text(name)
        (self.config.outputs / name).mkdir()
        (self.config.outputs / name / "anna.l.png").write_text(name)
        self.ledger.begin_claim(ClaimIntent(name, "outfit.yaml", [look], {}, name), self.wall_s)
        self.ledger.finish_claim(name, self.wall_s)
        if status is Status.CANCELLED:
            self.ledger.requests.cancel(name, self.wall_s)
        elif status is not Status.QUEUED:
            self.ledger.start_attempt(name, look.key, self.wall_s)
        if status is Status.DONE:
            self.ledger.finish_look(name, look.key, RESULT, self.wall_s)
        elif status is Status.FAILED:
            self.ledger.fail_look(name, look.key, "died", self.wall_s)
        self.ledger.settle_job(name, self.wall_s)
        if reported:
            assert all(self.ledger.confirm_report(job) for job in self.ledger.unreported() if job.id == name)

    def step(self, after_s: float = 0.0, *, wall_s: float | None = None) -> None:
        self.clock_s += after_s
        self.wall_s += after_s if wall_s is None else wall_s
        while self.caretaker.step(self.wall_s, self.clock_s):
            pass

    def has(self, name: str) -> tuple[bool, bool]:
        """Are its upload and its results still there?"""
        return self.spool.paths.job(name).exists(), (self.config.outputs / name).exists()

    def close(self) -> None:
        self.ledger.close()
        self.spool.unlock()


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[RetentionFixture]:
    made = RetentionFixture(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30min", 1800.0), ("12h", 43200.0), ("7d", 7 * DAY_S), ("2w", 14 * DAY_S), ("forever", None)],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds
    RetentionSettings(keep_uploads=text)


@pytest.mark.parametrize("text", ["7", "d", "-1d", "1.5d", "7 d", "7D", "999999d", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds_of(text)
    with pytest.raises(ValueError, match="keep_uploads"):
        RetentionSettings(keep_uploads=text)


def test_finished_jobs_go_after_their_time_and_are_remembered(fixture: RetentionFixture) -> None:
    finished = {"a": Status.DONE, "b": Status.FAILED, "c": Status.CANCELLED}
    for name, status in finished.items():
        fixture.add(name, status)
    fixture.step()
    fixture.step(6.9 * DAY_S)
    assert all(fixture.has(name) == (True, True) for name in finished)
    fixture.step(0.2 * DAY_S)
    assert all(fixture.has(name) == (False, False) for name in finished)
    jobs = {job.id: job for job in fixture.ledger.jobs()}
    assert {name: jobs[name].status for name in finished} == finished
    assert not any(job.has_upload or job.has_results for job in jobs.values())
    assert fixture.ledger.looks("a") == [], "of a year's jobs, the looks are not kept"
    with pytest.raises(ConfigError, match="'b'"):
        fixture.ledger.requests.retry("b", fixture.wall_s)


def test_uploads_and_results_have_times_of_their_own(tmp_path: Path) -> None:
    fixture = RetentionFixture(tmp_path, keep_uploads="1h", keep_results="forever")
    fixture.add("a", Status.FAILED)
    fixture.step()
    fixture.step(400 * DAY_S)
    assert fixture.has("a") == (False, True)
    with pytest.raises(ConfigError, match="removed"):
        fixture.ledger.requests.retry("a", fixture.wall_s)
    fixture.close()


def test_what_is_not_finished_never_goes(fixture: RetentionFixture) -> None:
    fixture.add("queued", Status.QUEUED)
    fixture.add("running", Status.RUNNING)
    fixture.add("unreported", Status.DONE, reported=False)
    fixture.add("retried", Status.FAILED)
    fixture.step()
    fixture.step(6 * DAY_S)
    fixture.ledger.requests.retry("retried", fixture.wall_s)
    fixture.step(400 * DAY_S)
    assert all(fixture.has(name) == (True, True) for name in ("queued", "running", "unreported", "retried"))


def test_a_job_that_was_begun_again_never_leaves(fixture: RetentionFixture) -> None:
    """Even if its time had begun: what is unfinished is protected twice."""
    fixture.add("again", Status.QUEUED)
    with fixture.ledger.database.writing("test") as db:
        db.execute("UPDATE jobs SET kept_since_s = 0")
    fixture.step()
    fixture.step(400 * DAY_S)
    assert fixture.has("again") == (True, True)


def test_an_upload_that_stands_in_inputs_is_not_touched(fixture: RetentionFixture) -> None:
    (fixture.config.inputs / "a").mkdir()
    fixture.ledger.find_or_create_unclaimed("a", 1.0)
    fixture.ledger.requests.cancel("a", 1.0)
    assert all(fixture.ledger.confirm_report(job) for job in fixture.ledger.unreported())
    fixture.step()
    fixture.step(400 * DAY_S)
    assert (fixture.config.inputs / "a").is_dir()


@pytest.mark.parametrize("jump_s", [DAY_S, 365 * DAY_S, -3600.0, -365 * DAY_S])
def test_a_clock_that_jumps_removes_nothing_early_and_delays_nothing(fixture: RetentionFixture, jump_s: float) -> None:
    fixture.add("a")
    fixture.step()
    fixture.step(60.0, wall_s=jump_s)
    fixture.step(6 * DAY_S)
    assert fixture.has("a") == (True, True)
    fixture.step(DAY_S)
    assert fixture.has("a") == (False, False)


def test_the_time_while_no_daemon_ran_counts_for_a_day_at_most(tmp_path: Path) -> None:
    fixture = RetentionFixture(tmp_path)
    fixture.add("a")
    fixture.step()
    fixture.close()
    for starts, wall_s in ((1, 1e9), (2, -1e9), (3, 1e9)):
        fixture = RetentionFixture(tmp_path)
        fixture.step(wall_s=wall_s)
        assert fixture.has("a") == (True, True), f"after {starts} starts with a wrong clock"
        fixture.close()


def test_a_folder_that_was_swapped_for_a_link_is_not_followed(fixture: RetentionFixture, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    fixture.add("a")
    fixture.step()
    (fixture.config.outputs / "a" / "link").symlink_to(other)
    (fixture.spool.paths.job("a") / "upload" / "link").symlink_to(other)
    fixture.add("b")
    (fixture.config.outputs / "b" / "anna.l.png").unlink()
    (fixture.config.outputs / "b").rmdir()
    (fixture.config.outputs / "b").symlink_to(other)
    fixture.step()
    fixture.step(8 * DAY_S)
    assert fixture.has("a") == (False, False)
    assert (other / "precious").exists() and (fixture.config.outputs / "b").is_symlink()


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    deep_fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=deep_fd)
        below_fd = os.open("d", os.O_RDONLY, dir_fd=deep_fd)
        os.close(deep_fd)
        deep_fd = below_fd
    os.close(deep_fd)
    tmp_fd = os.open(tmp_path, os.O_RDONLY)
    remove_tree("d", tmp_fd)
    remove_tree("missing", tmp_fd)
    os.close(tmp_fd)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("visit", [1, 2, 4, 7])
@pytest.mark.parametrize("place", ["retention.remove", "retention.removed"])
def test_a_kill_while_removing_is_completed_by_the_next_start(tmp_path: Path, place: str, visit: int) -> None:
    fixture = RetentionFixture(tmp_path)
    fixture.add("a")
    fixture.add("b", Status.FAILED)
    fixture.close()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(Path(__file__).parents[2])],
        env={**os.environ, VARIABLE: f"{place}:{min(visit, 2) if place.endswith('d') else visit}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    fixture = RetentionFixture(tmp_path)
    assert [job.status for job in fixture.ledger.jobs()] == [Status.DONE, Status.FAILED]
    fixture.step()
    assert fixture.has("a") == fixture.has("b") == (False, False), "at once, without waiting for their time again"
    assert fixture.ledger.retention.leaving("upload", 10) == fixture.ledger.retention.leaving("results", 10) == []
    fixture.close()


def test_a_folder_that_cannot_be_removed_holds_no_other_up(fixture: RetentionFixture) -> None:
    fixture.add("a")
    fixture.add("b")
    fixture.step()
    locked = fixture.config.outputs / "a"
    if subprocess.run(["chattr", "+i", str(locked)], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable flag, or we may not set it")
    try:
        fixture.step(8 * DAY_S)
        assert (fixture.has("a"), fixture.has("b")) == ((False, True), (False, False))
    finally:
        subprocess.run(["chattr", "-i", str(locked)], check=True)
    fixture.step(DAY_S)
    assert fixture.has("a") == (False, False)


def test_room_is_made_only_if_asked_for_and_only_as_much_as_needed(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    for make_room, expected in ((False, True), (True, False)):
        fixture = RetentionFixture(
            tmp_path / str(make_room), keep_uploads="forever", keep_results="forever", make_room=make_room
        )
        fixture.add("a")
        fixture.add("queued", Status.QUEUED)
        fixture.step()
        assert fixture.has("a") == (True, True), "there is room"
        fixture.spool.wanted_bytes = 2 * disk.f_blocks * disk.f_frsize
        fixture.step()
        assert fixture.has("a") == (expected, True), "results are never removed for room"
        assert fixture.has("queued") == (True, True)
        fixture.close()


def test_the_oldest_go_first_for_room_and_no_more_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = RetentionFixture(tmp_path, keep_uploads="forever", keep_results="forever", make_room=True)
    for number in range(12):
        fixture.add(f"j{number:02}")
        fixture.step(60.0)
    shortages = iter([True, False])
    monkeypatch.setattr(fixture.caretaker, "_is_short", lambda: next(shortages, False))
    fixture.step()
    left = [number for number in range(12) if fixture.has(f"j{number:02}")[0]]
    assert left == list(range(5, 12))
    fixture.close()
