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
from fastfit_watch.domain.job import LookResult, Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.intake.claim import UploadClaimer
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.failpoints import VARIABLE
from fastfit_watch.system.folders import remove_tree

DAY_S = 86400.0
RESULT = LookResult("x.png", "ab" * 32, 4, 3, {}, None, "cpu")
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from unit.daemon.test_retention import House
house = House(Path(sys.argv[1]))
house.step()
house.step(8 * 86400.0)
"""


class House:
    """A spool with jobs in every state, and a caretaker whose clocks the test moves."""

    def __init__(self, root: Path, **retention: object) -> None:
        settings = RetentionSettings.model_validate({"keep_uploads": "7d", "keep_results": "7d", **retention})
        self.config = Config(
            inputs=root / "inputs", outputs=root / "outputs", retention=settings, limits=Limits(min_free_bytes=0)
        )
        self.config.outputs.mkdir(exist_ok=True, parents=True)
        self.spool = UploadClaimer(self.config)
        self.spool.lock()
        self.ledger = Ledger(self.spool.ledger_path)
        self.caretaker = RetentionThread(self.config, self.ledger, self.spool)
        self.wall_s, self.clock_s = 1_000_000.0, 0.0

    def add(self, name: str, status: Status = Status.DONE, *, reported: bool = True) -> None:
        """A job, its files, and what intake, dispatch and the announcer make of it."""
        self.ledger.find_or_create_unclaimed(name, self.wall_s)
        look = Look("anna.jpg", "l", {Category.UPPER: "s.jpg"}, SamplingOptions(seed=1))
        for part in ("upload", "snapshot", "receipts", "upload/@eaDir/deep"):
            (self.spool.job_folder(name) / part).mkdir(parents=True)
            (self.spool.job_folder(name) / part / "file").write_text(name)
        (self.config.outputs / name).mkdir()
        (self.config.outputs / name / "anna.l.png").write_text(name)
        self.ledger.begin_claim(name, "outfit.yaml", [look], {}, name, self.wall_s)
        self.ledger.finish_claim(name, self.wall_s)
        if status is Status.CANCELLED:
            self.ledger.cancel(name, self.wall_s)
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
        return self.spool.job_folder(name).exists(), (self.config.outputs / name).exists()

    def close(self) -> None:
        self.ledger.close()
        self.spool.unlock()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
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


def test_finished_jobs_go_after_their_time_and_are_remembered(house: House) -> None:
    finished = {"a": Status.DONE, "b": Status.FAILED, "c": Status.CANCELLED}
    for name, status in finished.items():
        house.add(name, status)
    house.step()
    house.step(6.9 * DAY_S)
    assert all(house.has(name) == (True, True) for name in finished)
    house.step(0.2 * DAY_S)
    assert all(house.has(name) == (False, False) for name in finished)
    jobs = {job.id: job for job in house.ledger.jobs()}
    assert {name: jobs[name].status for name in finished} == finished
    assert not any(job.has_upload or job.has_results for job in jobs.values())
    assert house.ledger.looks("a") == [], "of a year's jobs, the looks are not kept"
    with pytest.raises(ConfigError, match="'b'"):
        house.ledger.retry("b", house.wall_s)


def test_uploads_and_results_have_times_of_their_own(tmp_path: Path) -> None:
    house = House(tmp_path, keep_uploads="1h", keep_results="forever")
    house.add("a", Status.FAILED)
    house.step()
    house.step(400 * DAY_S)
    assert house.has("a") == (False, True)
    with pytest.raises(ConfigError, match="removed"):
        house.ledger.retry("a", house.wall_s)
    house.close()


def test_what_is_not_finished_never_goes(house: House) -> None:
    house.add("queued", Status.QUEUED)
    house.add("running", Status.RUNNING)
    house.add("unreported", Status.DONE, reported=False)
    house.add("retried", Status.FAILED)
    house.step()
    house.step(6 * DAY_S)
    house.ledger.retry("retried", house.wall_s)
    house.step(400 * DAY_S)
    assert all(house.has(name) == (True, True) for name in ("queued", "running", "unreported", "retried"))


def test_a_job_that_was_begun_again_never_leaves(house: House) -> None:
    """Even if its time had begun: what is unfinished is protected twice."""
    house.add("again", Status.QUEUED)
    with house.ledger.writing("test") as db:
        db.execute("UPDATE jobs SET kept_since_s = 0")
    house.step()
    house.step(400 * DAY_S)
    assert house.has("again") == (True, True)


def test_an_upload_that_stands_in_inputs_is_not_touched(house: House) -> None:
    (house.config.inputs / "a").mkdir()
    house.ledger.find_or_create_unclaimed("a", 1.0)
    house.ledger.cancel("a", 1.0)
    assert all(house.ledger.confirm_report(job) for job in house.ledger.unreported())
    house.step()
    house.step(400 * DAY_S)
    assert (house.config.inputs / "a").is_dir()


@pytest.mark.parametrize("jump_s", [DAY_S, 365 * DAY_S, -3600.0, -365 * DAY_S])
def test_a_clock_that_jumps_removes_nothing_early_and_delays_nothing(house: House, jump_s: float) -> None:
    house.add("a")
    house.step()
    house.step(60.0, wall_s=jump_s)
    house.step(6 * DAY_S)
    assert house.has("a") == (True, True)
    house.step(DAY_S)
    assert house.has("a") == (False, False)


def test_the_time_while_no_daemon_ran_counts_for_a_day_at_most(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.add("a")
    house.step()
    house.close()
    for starts, wall_s in ((1, 1e9), (2, -1e9), (3, 1e9)):
        house = House(tmp_path)
        house.step(wall_s=wall_s)
        assert house.has("a") == (True, True), f"after {starts} starts with a wrong clock"
        house.close()


def test_a_folder_that_was_swapped_for_a_link_is_not_followed(house: House, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    house.add("a")
    house.step()
    (house.config.outputs / "a" / "link").symlink_to(other)
    (house.spool.job_folder("a") / "upload" / "link").symlink_to(other)
    house.add("b")
    (house.config.outputs / "b" / "anna.l.png").unlink()
    (house.config.outputs / "b").rmdir()
    (house.config.outputs / "b").symlink_to(other)
    house.step()
    house.step(8 * DAY_S)
    assert house.has("a") == (False, False)
    assert (other / "precious").exists() and (house.config.outputs / "b").is_symlink()


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
    house = House(tmp_path)
    house.add("a")
    house.add("b", Status.FAILED)
    house.close()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(Path(__file__).parents[2])],
        env={**os.environ, VARIABLE: f"{place}:{min(visit, 2) if place.endswith('d') else visit}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    house = House(tmp_path)
    assert [job.status for job in house.ledger.jobs()] == [Status.DONE, Status.FAILED]
    house.step()
    assert house.has("a") == house.has("b") == (False, False), "at once, without waiting for their time again"
    assert house.ledger.leaving("upload", 10) == house.ledger.leaving("results", 10) == []
    house.close()


def test_a_folder_that_cannot_be_removed_holds_no_other_up(house: House) -> None:
    house.add("a")
    house.add("b")
    house.step()
    locked = house.config.outputs / "a"
    if subprocess.run(["chattr", "+i", str(locked)], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable flag, or we may not set it")
    try:
        house.step(8 * DAY_S)
        assert (house.has("a"), house.has("b")) == ((False, True), (False, False))
    finally:
        subprocess.run(["chattr", "-i", str(locked)], check=True)
    house.step(DAY_S)
    assert house.has("a") == (False, False)


def test_room_is_made_only_if_asked_for_and_only_as_much_as_needed(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    for make_room, expected in ((False, True), (True, False)):
        house = House(tmp_path / str(make_room), keep_uploads="forever", keep_results="forever", make_room=make_room)
        house.add("a")
        house.add("queued", Status.QUEUED)
        house.step()
        assert house.has("a") == (True, True), "there is room"
        house.spool.wanted_bytes = 2 * disk.f_blocks * disk.f_frsize
        house.step()
        assert house.has("a") == (expected, True), "results are never removed for room"
        assert house.has("queued") == (True, True)
        house.close()


def test_the_oldest_go_first_for_room_and_no_more_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path, keep_uploads="forever", keep_results="forever", make_room=True)
    for number in range(12):
        house.add(f"j{number:02}")
        house.step(60.0)
    shortages = iter([True, False])
    monkeypatch.setattr(house.caretaker, "_is_short", lambda: next(shortages, False))
    house.step()
    left = [number for number in range(12) if house.has(f"j{number:02}")[0]]
    assert left == list(range(5, 12))
    house.close()
