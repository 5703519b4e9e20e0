"""The spool: nothing is followed, nothing blocks, and a kill between any two steps neither loses nor doubles a job."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import StorageError, UploadError
from fastfit_watch.domain.job import ClaimIntent, Job, Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.intake.claim import Claim, UploadClaimer
from fastfit_watch.intake.fingerprint import digest_of
from fastfit_watch.intake.upload_folder import FileChanged, Listing, is_open_for_writing, list_folder, read_small
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import Spool, SpoolPaths
from fastfit_watch.system.failpoints import VARIABLE
from fastfit_watch.system.folders import open_folder

FILES = {"outfit.yaml": b"person: anna.jpg\nupper: shirt.jpg\n", "anna.jpg": b"anna" * 1000, "shirt.jpg": b"shirt"}
LOOK = Look("anna.jpg", "look", {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=7))
# Takes the upload "spring" as intake does; run in a process that may be killed at any step.
CLAIM_PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from unit.intake.test_claim import take
take(Path(sys.argv[1]))
"""
# Swaps a file for a symlink and back, as fast as it can.
RACER = """
import os, sys
os.chdir(sys.argv[1])
while True:
    os.symlink(sys.argv[2], "link"); os.rename("link", "anna.jpg")
    open("file", "wb").write(b"anna"); os.rename("file", "anna.jpg")
"""


def make_upload(inputs: Path, name: str = "spring") -> Path:
    folder = inputs / name
    folder.mkdir(parents=True)
    for file, data in FILES.items():
        (folder / file).write_bytes(data)
    return folder


def look_into(folder: Path, limits: Limits | None = None) -> Listing:
    with open_folder(folder) as folder_fd:
        return list_folder(folder_fd, limits or Limits())


def open_spool(config: Config) -> Spool:
    return Spool(SpoolPaths(config.inputs), config.limits)


def take(inputs: Path, name: str = "spring") -> Job:
    """One claim, from first sight to the queue, after finishing what a crash left."""
    config = Config(inputs=inputs)
    spool = open_spool(config)
    spool.lock()
    try:
        with closing(Ledger(spool.paths.ledger)) as ledger:
            claimer = UploadClaimer(spool, config.limits)
            claimer.recover(ledger, 1.0)
            claimer.sweep(ledger)
            newest = ledger.newest_job_named(name)
            if newest is not None and not newest.status.is_open:
                return newest
            job = ledger.find_or_create_unclaimed(name, 1.0)
            with open_folder(inputs / name) as folder_fd:
                listing = list_folder(folder_fd, config.limits)
                files = claimer.snapshot(job.id, folder_fd, listing.fingerprint)
                claim = Claim(job.id, name, "outfit.yaml", [LOOK], files, listing.fingerprint)
                (claimed,) = claimer.claim_all(ledger, [(claim, folder_fd)], 2.0)
                assert claimed is not None
                return claimed
    finally:
        spool.unlock()


def assert_taken_once(inputs: Path) -> None:
    """One job, queued, its copies whole, its folder in the spool, an empty folder in its place."""
    with closing(Ledger(inputs / ".spool" / "ledger.db")) as ledger:
        (job,) = ledger.jobs()
        assert (job.id, job.status, len(ledger.looks("spring"))) == ("spring", Status.QUEUED, 1)
        assert ledger.pending_claims() == []
    for place in ("snapshot", "upload"):
        folder = inputs / ".spool" / "jobs" / "spring" / place
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES
    assert list((inputs / "spring").iterdir()) == []


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return tmp_path / "inputs"


@pytest.fixture
def spool(inputs: Path) -> Iterator[Spool]:
    made = open_spool(Config(inputs=inputs))
    made.lock()
    yield made
    made.unlock()


@pytest.fixture
def claimer(spool: Spool) -> UploadClaimer:
    return UploadClaimer(spool, Limits())


@pytest.fixture
def ledger(spool: Spool) -> Iterator[Ledger]:
    with closing(Ledger(spool.paths.ledger)) as opened:
        yield opened


def test_a_claim_moves_the_folder_and_leaves_an_empty_one(inputs: Path) -> None:
    folder = make_upload(inputs)
    folder.chmod(0o2775)
    job = take(inputs)
    assert job.status is Status.QUEUED
    assert_taken_once(inputs)
    assert stat.S_IMODE((inputs / "spring").stat().st_mode) == 0o2775
    assert stat.S_IMODE((inputs / ".spool").stat().st_mode) == 0o700


STEPS = (
    *(f"ledger.{step}.{moment}" for step in ("sight", "begin_claim", "finish_claim") for moment in ("before", "after")),
    *("spool.copy", "spool.copied", "spool.rename.before", "spool.rename.sync", "spool.rename.after"),
    "spool.placeholder.after",
)


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_at_every_step_loses_and_doubles_nothing(inputs: Path, step: str) -> None:
    make_upload(inputs)
    done = subprocess.run(
        [sys.executable, "-c", CLAIM_PROGRAM, str(inputs), str(Path(__file__).parents[2])],
        env={**os.environ, VARIABLE: f"{step}:1"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, "the step was reached"
    assert take(inputs).status is Status.QUEUED
    assert_taken_once(inputs)


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_at_every_step_loses_and_doubles_nothing(
    inputs: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_upload(inputs)
    monkeypatch.setenv(VARIABLE, f"{step}:1:ENOSPC")
    with pytest.raises(StorageError):
        take(inputs)
    monkeypatch.delenv(VARIABLE)
    assert take(inputs).status is Status.QUEUED
    assert_taken_once(inputs)


def test_a_folder_that_changed_while_we_were_down_waits_again(inputs: Path) -> None:
    folder = make_upload(inputs)
    subprocess.run(
        [sys.executable, "-c", CLAIM_PROGRAM, str(inputs), str(Path(__file__).parents[2])],
        env={**os.environ, VARIABLE: "spool.rename.before:1"},
        check=False,
    )
    (folder / "anna.jpg").write_bytes(b"another picture")
    spool = open_spool(Config(inputs=inputs))
    spool.lock()
    with closing(Ledger(spool.paths.ledger)) as ledger:
        (job,) = UploadClaimer(spool, Limits()).recover(ledger, 3.0)
        assert (job.status, job.reason) == (Status.WAITING, "it changed while it was being taken")
    spool.unlock()
    assert (folder / "anna.jpg").read_bytes() == b"another picture"


def test_a_change_between_copy_and_claim_is_noticed(inputs: Path, claimer: UploadClaimer, ledger: Ledger) -> None:
    folder = make_upload(inputs)
    ledger.find_or_create_unclaimed("spring", 1.0)
    with open_folder(folder) as folder_fd:
        listing = list_folder(folder_fd, Limits())
        files = claimer.snapshot("spring", folder_fd, listing.fingerprint)
        (folder / "anna.jpg").write_bytes(b"another")
        claim = Claim("spring", "spring", "outfit.yaml", [LOOK], files, listing.fingerprint)
        assert claimer.claim_all(ledger, [(claim, folder_fd)], 2.0) == [None]
    assert ledger.pending_claims() == [] and folder.is_dir()


class LateWriter(Ledger):
    """A ledger whose first claim is watched by a writer with a file still open."""

    target: Path

    def begin_claim(self, intent: ClaimIntent, now_s: float) -> bool:
        begun = super().begin_claim(intent, now_s)
        with self.target.open("ab") as file:
            file.write(b"late")
        return begun


def test_a_write_during_the_rename_puts_the_folder_back(inputs: Path, claimer: UploadClaimer) -> None:
    folder = make_upload(inputs)
    with closing(LateWriter(claimer.spool.paths.ledger)) as ledger, open_folder(folder) as folder_fd:
        ledger.target = folder / "anna.jpg"
        ledger.find_or_create_unclaimed("spring", 1.0)
        listing = list_folder(folder_fd, Limits())
        files = claimer.snapshot("spring", folder_fd, listing.fingerprint)
        claim = Claim("spring", "spring", "outfit.yaml", [LOOK], files, listing.fingerprint)
        (job,) = claimer.claim_all(ledger, [(claim, folder_fd)], 2.0)
        assert job is not None and job.status is Status.WAITING
        assert ledger.looks("spring") == []
    assert (folder / "anna.jpg").read_bytes().endswith(b"late")
    assert not (claimer.spool.paths.job("spring") / "upload").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a file nobody may move")
def test_a_folder_that_may_not_be_moved_is_copied_and_known_again(inputs: Path) -> None:
    folder = make_upload(inputs)
    marked = subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False)
    if marked.returncode:
        pytest.skip("this filesystem has no immutable flag")
    try:
        job = take(inputs)
        assert job.status is Status.QUEUED
        assert (folder / "anna.jpg").read_bytes() == FILES["anna.jpg"]
        snapshot = inputs / ".spool" / "jobs" / "spring" / "snapshot"
        assert {file.name: file.read_bytes() for file in snapshot.iterdir()} == FILES
        with closing(Ledger(inputs / ".spool" / "ledger.db")) as ledger:
            assert ledger.was_claimed_by_copy("spring", digest_of(look_into(folder).fingerprint))
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)


def test_a_damaged_copy_is_never_used(inputs: Path) -> None:
    make_upload(inputs)
    subprocess.run(
        [sys.executable, "-c", CLAIM_PROGRAM, str(inputs), str(Path(__file__).parents[2])],
        env={**os.environ, VARIABLE: "spool.rename.after:1"},
        check=False,
    )
    (inputs / ".spool" / "jobs" / "spring" / "snapshot" / "anna.jpg").write_bytes(b"torn")
    assert take(inputs).status is Status.QUEUED
    assert_taken_once(inputs)


def test_without_room_nothing_is_copied(inputs: Path, claimer: UploadClaimer) -> None:
    folder = make_upload(inputs)
    limits = Limits(min_free_bytes=2**60)
    small = UploadClaimer(open_spool(Config(inputs=inputs, limits=limits)), limits)
    with open_folder(folder) as folder_fd, pytest.raises(StorageError, match="MB are free"):
        small.snapshot("spring", folder_fd, list_folder(folder_fd, Limits()).fingerprint)
    assert not claimer.spool.paths.job("spring").exists()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "socket", "device", "hardlink", "folder"])
def test_what_is_no_plain_file_is_named_with_a_fix(inputs: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_upload(inputs)
    odd = folder / "ben.jpg"
    if kind == "symlink":
        odd.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(odd)
    elif kind == "socket":
        monkeypatch.chdir(folder)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("ben.jpg")
    elif kind == "device":
        if os.geteuid():
            pytest.skip("needs root")
        os.mknod(odd, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    elif kind == "hardlink":
        odd.hardlink_to(folder / "anna.jpg")
    else:
        odd.mkdir()
    faults = " ".join(look_into(folder).faults)
    assert "'ben.jpg'" in faults
    assert "Upload" in faults or "Put the files" in faults


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hardlink", "folder"])
def test_a_file_swapped_after_the_listing_is_never_read(inputs: Path, claimer: UploadClaimer, kind: str) -> None:
    folder = make_upload(inputs)
    marks = look_into(folder).fingerprint
    odd = folder / "anna.jpg"
    odd.unlink()
    if kind == "symlink":
        odd.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(odd)
    elif kind == "hardlink":
        odd.hardlink_to(folder / "shirt.jpg")
    else:
        odd.mkdir()
    with open_folder(folder) as folder_fd, pytest.raises((FileChanged, UploadError)):
        claimer.snapshot("spring", folder_fd, marks)


def test_a_racing_symlink_is_never_followed(inputs: Path, claimer: UploadClaimer, tmp_path: Path) -> None:
    folder = make_upload(inputs)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    racer = subprocess.Popen([sys.executable, "-c", RACER, str(folder), str(secret)])
    try:
        ends_s = time.monotonic() + 1.5
        outcomes = set()
        while time.monotonic() < ends_s:
            with open_folder(folder) as folder_fd:
                marks = [mark for mark in list_folder(folder_fd, Limits()).fingerprint if mark.name == "anna.jpg"]
                try:
                    claimer.snapshot("spring", folder_fd, marks)
                    copy = claimer.spool.paths.snapshot("spring") / "anna.jpg"
                    outcomes.add(copy.read_bytes() if copy.exists() else b"")
                except (FileChanged, UploadError):
                    outcomes.add(b"refused")
    finally:
        racer.kill()
        racer.wait()
    assert b"refused" in outcomes and b"secret" not in outcomes


def test_a_link_is_never_opened(inputs: Path, tmp_path: Path) -> None:
    folder = make_upload(inputs)
    (tmp_path / "secret").write_text("secret")
    (folder / "outfit.yaml").unlink()
    (folder / "outfit.yaml").symlink_to(tmp_path / "secret")
    with open_folder(folder) as folder_fd, pytest.raises(OSError, match="symbolic links"):
        read_small(folder_fd, "outfit.yaml", 1000)


def test_a_manifest_that_grows_while_it_is_read_is_refused(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size was right when it was opened."""
    folder, read = make_upload(inputs), os.read

    def grow(handle: int, count: int) -> bytes:
        with (folder / "outfit.yaml").open("ab") as file:
            file.write(bytes(100))
        return read(handle, count)

    monkeypatch.setattr(os, "read", grow)
    size = (folder / "outfit.yaml").stat().st_size
    with open_folder(folder) as folder_fd, pytest.raises(UploadError, match="is larger"):
        for _ in range(20):
            read_small(folder_fd, "outfit.yaml", size + 50)


def test_a_file_that_changes_while_it_is_copied_is_not_taken(
    inputs: Path, claimer: UploadClaimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size, so that only its times tell."""
    folder, read = make_upload(inputs), os.read
    marks = [mark for mark in look_into(folder).fingerprint if mark.name == "anna.jpg"]

    def change(handle: int, count: int) -> bytes:
        data = read(handle, count)
        with (folder / "anna.jpg").open("r+b") as file:
            file.write(b"changed")
        return data

    monkeypatch.setattr(os, "read", change)
    with open_folder(folder) as folder_fd, pytest.raises(FileChanged):
        claimer.snapshot("spring", folder_fd, marks)


def test_limits_are_kept(inputs: Path, claimer: UploadClaimer) -> None:
    folder = make_upload(inputs)
    assert "more than 2 files" in " ".join(look_into(folder, Limits(files=2)).faults)
    assert "larger than" in " ".join(look_into(folder, Limits(job_bytes=100)).faults)
    with open_folder(folder) as folder_fd:
        with pytest.raises(UploadError, match=r"'outfit.yaml' is larger"):
            read_small(folder_fd, "outfit.yaml", 10)
        small = UploadClaimer(claimer.spool, Limits(picture_bytes=100))
        with pytest.raises(UploadError, match=r"'anna.jpg' is larger"):
            small.snapshot("spring", folder_fd, look_into(folder).fingerprint)


def test_a_hundred_thousand_files_are_not_all_read(inputs: Path) -> None:
    folder = make_upload(inputs)
    for number in range(5000):
        (folder / f"f{number}").touch()
    listing = look_into(folder, Limits(files=20))
    assert len(listing.fingerprint) == 41 and listing.faults


def test_hidden_files_count_for_stillness_only(inputs: Path) -> None:
    folder = make_upload(inputs)
    before = look_into(folder)
    (folder / ".anna.jpg.Xy12").write_bytes(b"half")
    (folder / ".cache").mkdir()
    after = look_into(folder)
    assert after.fingerprint != before.fingerprint
    assert (after.names, after.partial, after.faults) == (before.names, (), ())


@pytest.mark.parametrize("name", ["RETRY", "retry", "Retry.txt", "RETRY.TXT"])
def test_control_files_are_no_part_of_the_upload(inputs: Path, name: str) -> None:
    folder = make_upload(inputs)
    before = look_into(folder)
    (folder / name).touch()
    after = look_into(folder)
    assert (after.fingerprint, after.names) == (before.fingerprint, before.names)
    assert [(each.name, each.request) for each in after.control_files] == [(name, "RETRY")]


@pytest.mark.parametrize("name", [b"a\nb.jpg", b"a\x1b[31m.jpg", b"\xff.jpg", "a\u202egpj.exe".encode()])
def test_faults_of_names_that_cannot_be_shown_stay_on_one_line(inputs: Path, name: bytes) -> None:
    folder = make_upload(inputs)
    (folder / os.fsdecode(name)).symlink_to("/etc/passwd")
    (fault,) = look_into(folder).faults
    assert fault.isprintable() and "Upload the file itself" in fault


def test_a_writer_is_noticed_where_the_kernel_tells(inputs: Path) -> None:
    folder = make_upload(inputs)
    with open_folder(folder) as folder_fd:
        if is_open_for_writing(folder_fd, "anna.jpg") is None:
            pytest.skip("no leases on this filesystem")
        with (folder / "anna.jpg").open("r+b"):
            assert is_open_for_writing(folder_fd, "anna.jpg") is True
        assert is_open_for_writing(folder_fd, "anna.jpg") is False
        os.mkfifo(folder / "pipe")
        assert is_open_for_writing(folder_fd, "pipe") is None


def test_a_writer_coming_during_the_lease_harms_nobody(inputs: Path) -> None:
    folder = make_upload(inputs)
    file_fd = os.open(folder / "anna.jpg", os.O_RDONLY)
    fcntl.fcntl(file_fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(file_fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        pytest.skip("no leases on this filesystem")
    writer = subprocess.Popen([sys.executable, "-c", f"open({str(folder / 'anna.jpg')!r}, 'r+b')"])
    time.sleep(0.3)
    fcntl.fcntl(file_fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    assert writer.wait(120) == 0, "and we are still alive to see it"
    os.close(file_fd)
