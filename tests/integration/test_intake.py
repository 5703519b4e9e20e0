"""Intake with real folders: every upload ends claimed once, or waits with a reason; nothing half-written is taken."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image, UnidentifiedImageError

from fastfit_watch.config import Config, Watch
from fastfit_watch.failpoints import VARIABLE
from fastfit_watch.intake import NOTE, Intake
from fastfit_watch.job import Job, LookResult, Status
from fastfit_watch.ledger import Ledger
from fastfit_watch.limits import Limits
from fastfit_watch.spool import Spool
from fastfit_watch.watch import Bell, Watcher

MANIFEST = b"person: anna.jpg\nupper: shirt.jpg\n"
RESULT = LookResult("x.png", "00" * 32, 4, 3, {}, None, "cpu")
SETTLE_S = 5.0
# Intake as the daemon runs it, until every upload is claimed; may be killed at any step.
RUN_PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_intake import Desk
desk = Desk(Path(sys.argv[1]))
desk.open()
desk.step(); desk.step(5.0)
desk.close()
"""


def picture(seed: int = 0) -> bytes:
    """A small JPEG, different for every seed."""
    data = io.BytesIO()
    Image.linear_gradient("L").rotate(seed).resize((48, 64)).convert("RGB").save(data, "JPEG")
    return data.getvalue()


FILES = {"outfit.yaml": MANIFEST, "anna.jpg": picture(1), "shirt.jpg": picture(2)}


class Decoder:
    """Decodes here and now what the real inspector decodes in a process of its own; counts how often."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def inspect(self, folder: Path, names: Sequence[str]) -> Mapping[str, object]:
        self.seen += names
        return {name: self._look_at(folder / name) for name in names}

    def _look_at(self, path: Path) -> object:
        try:
            with Image.open(path) as image:
                image.load()
                return image.size
        except UnidentifiedImageError:
            return f"{path.name} is not a JPEG, PNG or WebP picture."
        except OSError:
            return f"{path.name} ends early."


@dataclass
class Desk:
    """Everything one daemon has for its intake, with a clock that the test moves."""

    inputs: Path
    watch: Watch = field(default_factory=Watch)
    limits: Limits = field(default_factory=lambda: Limits(min_free_bytes=0))
    events: Literal["auto", "poll"] = "poll"
    now_s: float = 1_000.0

    def open(self) -> None:
        config = Config(inputs=self.inputs, watch=self.watch, limits=self.limits)
        self.spool = Spool(config)
        self.spool.lock()
        self.ledger = Ledger(self.spool.ledger_path)
        self.decoder = Decoder()
        self.bell = Bell()
        self.watcher = Watcher(self.inputs, self.bell, self.events)
        self.told: list[tuple[str, Status, str]] = []
        self.intake = Intake(
            config, self.ledger, self.spool, self.decoder, self.watcher, self.bell, on_change=self._hear
        )

    def _hear(self, job: Job) -> None:
        self.told.append((job.id, job.status, job.reason))

    def close(self) -> None:
        self.ledger.close()
        self.spool.unlock()

    def restart(self) -> None:
        self.close()
        self.open()

    def step(self, after_s: float = 0.0) -> float:
        self.now_s += after_s
        return self.intake.step(self.now_s)

    def settle(self) -> None:
        self.step()
        self.step(SETTLE_S)

    def upload(self, name: str = "spring", files: Mapping[str, bytes] = FILES) -> Path:
        folder = self.inputs / name
        folder.mkdir(exist_ok=True)
        for file, data in files.items():
            (folder / file).write_bytes(data)
        return folder

    def job(self, job_id: str = "spring") -> Job:
        job = self.ledger.job(job_id)
        assert job is not None
        return job

    def said(self, job_id: str = "spring") -> str:
        job = self.job(job_id)
        return f"{job.status.value}: {job.reason}"

    def finish(self, job_id: str = "spring") -> None:
        """What dispatch and the worker do, in no time."""
        for record in self.ledger.looks(job_id):
            if self.ledger.start_attempt(job_id, record.look.key, self.now_s) is not None:
                self.ledger.finish_look(job_id, record.look.key, RESULT, self.now_s)
        self.ledger.settle_job(job_id, self.now_s)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "inputs")
    made.inputs.mkdir()
    made.open()
    yield made
    made.close()


def test_an_upload_is_told_step_by_step_and_claimed_once_still(desk: Desk) -> None:
    folder = desk.upload(files={})
    desk.step()
    assert desk.told == [
        ("spring", Status.WAITING, "just seen"),
        ("spring", Status.WAITING, "no outfit.yaml yet"),
    ]
    (folder / "outfit.yaml").write_bytes(MANIFEST)
    desk.step(2.0)
    assert desk.said() == "waiting: missing anna.jpg, shirt.jpg"
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    desk.step(2.0)
    assert desk.said() == "waiting: missing shirt.jpg"
    (folder / "shirt.jpg").write_bytes(FILES["shirt.jpg"])
    assert desk.step(2.0) <= SETTLE_S
    assert desk.said() == "waiting: still being written"
    desk.step(SETTLE_S - 0.1)
    assert desk.said() == "waiting: still being written"
    desk.step(0.1)
    assert desk.said() == "queued: 1 picture to make"
    (record,) = desk.ledger.next_looks(desk.now_s, 5)
    assert record.look.options.seed is not None
    assert desk.job().files == {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert list(folder.iterdir()) == []
    told = len(desk.told)
    desk.step(2.0)
    assert len(desk.told) == told and len(desk.ledger.jobs()) == 1


def test_a_file_that_grows_is_never_taken_even_across_restarts(desk: Desk) -> None:
    desk.upload()
    for size in range(40):
        with (desk.inputs / "spring" / "anna.jpg").open("ab") as file:
            file.write(b"x")
        os.utime(desk.inputs / "spring" / "anna.jpg", (1e9, 1e9))
        desk.step(SETTLE_S - 1)
        if size % 10 == 5:
            desk.restart()
    assert desk.said() == "waiting: still being written"
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_a_restart_gives_no_upload_away(desk: Desk) -> None:
    desk.upload()
    desk.restart()
    desk.step(1e6)
    assert desk.said() == "waiting: still being written"


def test_a_truncated_picture_waits_and_is_taken_when_it_is_whole(desk: Desk) -> None:
    folder = desk.upload(files={**FILES, "anna.jpg": FILES["anna.jpg"][:400]})
    desk.settle()
    assert desk.said() == "waiting: anna.jpg ends early."
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_a_text_named_jpg_is_invalid_until_it_is_replaced(desk: Desk) -> None:
    folder = desk.upload(files={**FILES, "anna.jpg": b"<html>", "shirt.jpg": b"no picture"})
    desk.settle()
    assert desk.said() == (
        "invalid: anna.jpg is not a JPEG, PNG or WebP picture. shirt.jpg is not a JPEG, PNG or WebP picture."
    )
    for name in ("anna.jpg", "shirt.jpg"):
        (folder / name).write_bytes(FILES[name])
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_half_a_manifest_is_no_fault_before_the_folder_is_still(desk: Desk) -> None:
    folder = desk.upload(files={**FILES, "outfit.yaml": MANIFEST + b"colour: red\n"})
    desk.step()
    assert desk.said() == "waiting: still being written"
    desk.step(SETTLE_S)
    assert desk.said().startswith("invalid: outfit.yaml:3: ")
    (folder / "outfit.yaml").write_bytes(MANIFEST)
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_an_upload_left_alone_stalls_and_any_change_revives_it(desk: Desk) -> None:
    folder = desk.upload(files={"outfit.yaml": MANIFEST})
    desk.step()
    for _ in range(20):
        desk.step(31.0)
    assert desk.said() == "stalled: missing anna.jpg, shirt.jpg; nothing has changed for 10 min"
    for _ in range(2):  # settings read again, or another start: still nothing has changed
        desk.restart()
        desk.settle()
    assert desk.said().startswith("stalled") and desk.told == []
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    desk.step(31.0)
    assert desk.said() == "waiting: missing shirt.jpg"


def test_a_stalled_upload_that_changed_in_place_waits_again(desk: Desk) -> None:
    folder = desk.upload(files={**FILES, "anna.jpg": FILES["anna.jpg"][:300]})
    for _ in range(21):
        desk.step(31.0)
    assert desk.said().startswith("stalled: anna.jpg")
    desk.restart()
    desk.settle()
    assert desk.told == []
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"][:350])
    desk.settle()
    assert desk.said().startswith("waiting: anna.jpg")


def test_a_name_that_differs_by_capitals_gets_a_hint(desk: Desk) -> None:
    desk.upload(files={"outfit.yaml": MANIFEST, "Anna.JPG": FILES["anna.jpg"], "shirt.jpg": FILES["shirt.jpg"]})
    desk.step()
    assert desk.said() == "waiting: missing anna.jpg (anna.jpg is there as Anna.JPG: names must match exactly)"


def test_ready_needs_no_stillness_but_everything_else(desk: Desk) -> None:
    folder = desk.upload(files={"READY": b"", "outfit.yaml": MANIFEST, "anna.jpg": FILES["anna.jpg"]})
    desk.step()
    assert desk.said() == "waiting: missing shirt.jpg"
    (folder / "shirt.jpg").write_bytes(FILES["shirt.jpg"])
    desk.step()
    assert desk.job().status is Status.QUEUED


def test_a_folder_renamed_from_a_dot_name_came_whole(desk: Desk) -> None:
    desk.upload(".spring")
    desk.step()
    (desk.inputs / ".spring").rename(desk.inputs / "spring")
    desk.watcher.notice(str(desk.inputs / ".spring"), str(desk.inputs / "spring"))
    desk.step()
    assert desk.job().status is Status.QUEUED


def test_sums_that_do_not_match_yet_wait(desk: Desk) -> None:
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in FILES.items())
    folder = desk.upload(files={**FILES, "anna.jpg": picture(9), "SHA256SUMS": sums.encode()})
    desk.settle()
    assert desk.said() == "waiting: anna.jpg does not match SHA256SUMS yet"
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    desk.settle()
    assert desk.job().status is Status.QUEUED


def leases_work(written: Path) -> bool:
    """Does the kernel tell of a writer here? `written` is open for writing."""
    with written.open("rb") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return error.errno == errno.EAGAIN
    return False


def test_a_file_open_for_writing_holds_its_upload_back(desk: Desk) -> None:
    folder = desk.upload()
    with (folder / "anna.jpg").open("r+b"):
        if not leases_work(folder / "anna.jpg"):
            pytest.skip("no leases on this filesystem")
        desk.settle()
        assert desk.said() == "waiting: anna.jpg is still open for writing"
        told = len(desk.told)
        for _ in range(400):
            desk.step(2.0)
        assert desk.said() == "stalled: anna.jpg is still open for writing; nothing has changed for 10 min"
        assert len(desk.told) == told + 1, "it is said once, not at every scan"
    desk.step(2.0)
    assert desk.job().status is Status.QUEUED


def test_a_folder_removed_too_early_is_cancelled_and_its_name_is_free(desk: Desk) -> None:
    folder = desk.upload(files={"outfit.yaml": MANIFEST})
    desk.step()
    shutil.rmtree(folder)
    desk.step()
    assert desk.said() == "cancelled: the folder was removed before it was complete"
    desk.upload()
    desk.settle()
    assert desk.job("spring-2").status is Status.QUEUED


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hardlink", "folder"])
def test_odd_files_are_named_and_never_block(desk: Desk, kind: str) -> None:
    folder = desk.upload()
    (folder / "anna.jpg").unlink()
    if kind == "symlink":
        (folder / "anna.jpg").symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(folder / "anna.jpg")
    elif kind == "hardlink":
        (folder / "anna.jpg").hardlink_to(folder / "shirt.jpg")
    else:
        (folder / "anna.jpg").mkdir()
    desk.settle()
    assert desk.said().startswith("invalid: 'anna.jpg' is a")
    assert desk.decoder.seen == []
    (folder / "anna.jpg").rmdir() if kind == "folder" else (folder / "anna.jpg").unlink()
    desk.upload()
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_a_symlinked_folder_and_a_strange_name_are_invalid(desk: Desk, tmp_path: Path) -> None:
    (desk.inputs / "linked").symlink_to(tmp_path)
    (desk.inputs / os.fsdecode(b"\xff\n")).mkdir()
    desk.step()
    desk.step(2.0)
    assert {job.status for job in desk.ledger.jobs()} == {Status.INVALID}
    assert all(reason.isprintable() and job_id.isprintable() for job_id, _, reason in desk.told)
    assert len(desk.told) == 4, "each is greeted and judged once"


def test_quiet_folders_are_not_read_again(desk: Desk) -> None:
    desk.upload("bad", files={**FILES, "anna.jpg": b"<html>"})
    for number in range(20):
        desk.upload(f"waiting{number}", files={"outfit.yaml": MANIFEST})
    desk.settle()
    seen = list(desk.decoder.seen)
    for folder in desk.inputs.iterdir():
        for file in folder.glob("outfit.yaml"):
            os.utime(file, ns=(0, file.stat().st_mtime_ns))
    desk.step()
    began_s = time.process_time()
    for _ in range(100):
        desk.step(2.0)
    assert desk.decoder.seen == [*seen, "anna.jpg", "shirt.jpg"], "touched once, read once more"
    assert (time.process_time() - began_s) / 100 < 0.02, "under one percent of a core at a scan every two seconds"


def test_a_retry_file_starts_a_failed_job_again(desk: Desk) -> None:
    folder = desk.upload()
    desk.settle()
    (record,) = desk.ledger.looks("spring")
    desk.ledger.start_attempt("spring", record.look.key, desk.now_s)
    desk.ledger.fail_look("spring", record.look.key, "the engine died three times", desk.now_s)
    desk.ledger.settle_job("spring", desk.now_s)
    desk.step()
    (folder / "RETRY").touch()
    desk.step()
    assert desk.job().status is Status.QUEUED
    assert not (folder / "RETRY").exists() and folder.is_dir()
    assert desk.told[-1][1] is Status.QUEUED


def test_a_cancel_file_stops_a_claimed_job(desk: Desk) -> None:
    folder = desk.upload()
    desk.settle()
    (folder / "CANCEL").touch()
    desk.step()
    assert desk.said().startswith("cancelled: cancelled by request")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("order", ["CANCEL", "RETRY"])
def test_an_order_for_a_job_that_is_done_leaves_no_phantom(desk: Desk, order: str) -> None:
    """It comes between the last picture and the scan that would take the empty folder back."""
    folder = desk.upload()
    desk.settle()
    desk.step()
    desk.finish()
    (folder / order).touch()
    for _ in range(3):
        desk.step(2.0)
    assert not folder.exists()
    assert [(job.id, job.status) for job in desk.ledger.jobs()] == [("spring", Status.DONE)]


def test_an_upload_that_begins_with_an_order_is_not_taken_for_an_empty_folder(desk: Desk) -> None:
    desk.upload()
    desk.settle()
    desk.finish()
    desk.step()
    desk.upload(files={"RETRY": b""})
    desk.step(2.0)
    desk.upload(files=FILES)
    desk.settle()
    assert desk.job("spring-2").status is Status.QUEUED


def test_a_cancelled_upload_rests_until_retry(desk: Desk) -> None:
    folder = desk.upload()
    (folder / "CANCEL").touch()
    desk.settle()
    assert desk.said() == "cancelled: cancelled by request"
    (folder / "RETRY").touch()
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_commands_of_another_process_are_noticed(desk: Desk) -> None:
    desk.upload(files={**FILES, "anna.jpg": b"<html>"})
    desk.settle()
    with closing(Ledger(desk.spool.ledger_path)) as other:
        other.cancel("spring", desk.now_s)
        desk.step(2.0)
        assert desk.job().status is Status.CANCELLED
        other.retry("spring", desk.now_s)
    desk.step(2.0)
    assert desk.job().status is Status.INVALID, "it was examined again"


def test_the_empty_folder_goes_when_the_job_is_done(desk: Desk) -> None:
    folder = desk.upload()
    desk.settle()
    desk.step()
    assert folder.is_dir()
    desk.finish()
    desk.step()
    assert not folder.exists()
    folder.mkdir()
    desk.step()
    assert desk.said("spring-2") == "waiting: no outfit.yaml yet", "a new folder is a new upload"


def test_a_job_done_before_the_next_scan_leaves_no_phantom(desk: Desk) -> None:
    folder = desk.upload()
    desk.settle()
    desk.finish()
    desk.step()
    assert not folder.exists() and len(desk.ledger.jobs()) == 1


def test_a_job_done_while_the_daemon_restarted_leaves_no_phantom(desk: Desk) -> None:
    folder = desk.upload()
    desk.settle()
    desk.finish()
    desk.restart()
    desk.step()
    assert not folder.exists() and len(desk.ledger.jobs()) == 1


def test_the_same_name_again_is_another_job(desk: Desk) -> None:
    desk.upload()
    desk.settle()
    desk.upload()
    desk.settle()
    assert desk.job("spring-2").status is Status.QUEUED
    desk.finish()
    desk.upload(files={**FILES, "anna.jpg": picture(5)})
    desk.settle()
    assert desk.job("spring-3").status is Status.QUEUED
    assert (desk.spool.snapshot_folder("spring-3") / "anna.jpg").read_bytes() == picture(5)
    assert (desk.spool.snapshot_folder("spring") / "anna.jpg").read_bytes() == FILES["anna.jpg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file nobody may move")
def test_a_copied_upload_is_taken_once_and_again_after_a_change(desk: Desk) -> None:
    folder = desk.upload()
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable flag")
    try:
        desk.settle()
        assert desk.job().status is Status.QUEUED
        desk.restart()
        desk.settle()
        assert len(desk.ledger.jobs()) == 1
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
    (folder / "anna.jpg").write_bytes(picture(5))
    desk.settle()
    assert desk.job("spring-2").status is Status.QUEUED


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file nobody may move")
def test_an_order_that_cannot_be_removed_is_obeyed_once(desk: Desk) -> None:
    folder = desk.upload()
    (folder / "CANCEL").touch()
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable flag")
    try:
        desk.settle()
        assert desk.job().status is Status.CANCELLED
        desk.ledger.retry("spring", desk.now_s)
        desk.restart()
        desk.settle()
        assert desk.job().status is Status.QUEUED
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)


@pytest.mark.parametrize(
    "step", ["spool.copy", "spool.rename.before", "ledger.finish_claim.before", "ledger.sight.before"]
)
def test_a_full_disk_pauses_and_resumes_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    desk.upload()
    monkeypatch.setenv(VARIABLE, f"{step}:1:ENOSPC")
    desk.settle()
    desk.step(2.0)
    assert (desk.ledger.note(NOTE) or "").startswith("paused: ") and "No space left" in (desk.ledger.note(NOTE) or "")
    assert all(job.status is Status.WAITING for job in desk.ledger.jobs()), "the job is not blamed"
    monkeypatch.delenv(VARIABLE)
    desk.settle()
    assert (desk.job().status, desk.ledger.note(NOTE)) == (Status.QUEUED, "")


def test_too_little_room_pauses_before_anything_is_copied(desk: Desk) -> None:
    desk.limits = Limits(min_free_bytes=2**60)
    desk.restart()
    desk.upload()
    desk.settle()
    assert "MB are free" in (desk.ledger.note(NOTE) or "")
    desk.limits = Limits(min_free_bytes=0)
    desk.restart()
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_inputs_removed_and_made_again(desk: Desk) -> None:
    desk.upload("old", files={"outfit.yaml": MANIFEST})
    desk.step()
    shutil.rmtree(desk.inputs)
    desk.step(2.0)
    assert not desk.inputs.exists(), "a mount point that is gone is not filled"
    desk.inputs.mkdir()
    desk.upload()
    desk.settle()
    assert desk.job().status is Status.QUEUED
    assert [job.id for job in desk.ledger.jobs()] == ["spring"]


def test_an_upload_that_trips_us_stops_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.upload("a")
    desk.upload("b")
    inspect = desk.decoder.inspect

    def trip(folder: Path, names: Sequence[str]) -> Mapping[str, object]:
        if "/a/" in str(folder):
            raise KeyError("surprise")
        return inspect(folder, names)

    monkeypatch.setattr(desk.decoder, "inspect", trip)
    desk.settle()
    assert desk.job("b").status is Status.QUEUED
    assert desk.said("a").startswith("invalid: it could not be examined (KeyError('surprise'))")


KILLS = (
    "ledger.sight.before:2",
    "ledger.mark.after:3",
    "spool.copy:5",
    "spool.copied:2",
    "ledger.begin_claim.after:1",
    "spool.rename.before:2",
    "spool.rename.sync:3",
    "spool.placeholder.after:1",
    "ledger.finish_claim.before:2",
    "ledger.finish_claim.after:3",
)


def test_one_kill_after_the_other_loses_and_doubles_no_upload(desk: Desk) -> None:
    desk.close()
    count = 0
    for kill in KILLS:
        for _ in range(3):
            desk.upload(f"job{count}", {**FILES, "anna.jpg": picture(count)})
            count += 1
        done = subprocess.run(
            [sys.executable, "-c", RUN_PROGRAM, str(desk.inputs), str(Path(__file__).parent)],
            env={**os.environ, VARIABLE: kill},
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, f"{kill} was reached"
    desk.open()
    desk.settle()
    jobs = desk.ledger.jobs()
    assert sorted(job.id for job in jobs) == sorted(f"job{number}" for number in range(count))
    assert {job.status for job in jobs} == {Status.QUEUED}
    for number in range(count):
        assert (desk.spool.snapshot_folder(f"job{number}") / "anna.jpg").read_bytes() == picture(number)
        assert list((desk.inputs / f"job{number}").iterdir()) == []


def test_the_running_loop_greets_within_two_seconds_and_claims_a_slow_upload(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "inputs", Watch(settle_s=1.0, scan_s=0.5, quiet_scan_s=30.0), events="auto")
    desk.inputs.mkdir()
    desk.open()
    stop = threading.Event()
    loop = threading.Thread(target=desk.intake.run, args=(stop,))
    loop.start()
    try:
        time.sleep(1.0)
        began_s = time.monotonic()
        folder = desk.upload(files={"outfit.yaml": MANIFEST, "shirt.jpg": FILES["shirt.jpg"]})
        while not desk.told:
            assert time.monotonic() - began_s < 2.0
            time.sleep(0.01)
        with (folder / "anna.jpg").open("wb", buffering=0) as file:
            data = FILES["anna.jpg"]
            for start in range(0, len(data), len(data) // 8):
                file.write(data[start : start + len(data) // 8])
                time.sleep(0.3)
                assert desk.job().status is Status.WAITING
        while desk.job().status is Status.WAITING:
            assert time.monotonic() - began_s < 15.0
            time.sleep(0.05)
        assert desk.job().status is Status.QUEUED
        assert (desk.spool.snapshot_folder("spring") / "anna.jpg").read_bytes() == data
    finally:
        stop.set()
        desk.bell.ring()
        loop.join(10)
        desk.close()
    assert not loop.is_alive()


def test_uploads_that_come_together_are_all_taken(desk: Desk) -> None:
    for number in range(30):
        desk.upload(f"job{number}")
    desk.settle()
    assert len(desk.ledger.jobs([Status.QUEUED])) == 30
    assert {path.name for path in desk.inputs.iterdir() if any(path.iterdir())} == {".spool"}
