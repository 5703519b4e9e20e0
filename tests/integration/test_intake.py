"""Intake with real folders: every upload ends claimed once, or waits with a reason; nothing half-written is taken."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.intake_fixture import FILES, MANIFEST, SETTLE_S, IntakeFixture, picture

from fastfit_watch.domain.job import Status


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[IntakeFixture]:
    with IntakeFixture.at(tmp_path / "inputs") as intake:
        yield intake


def test_an_upload_is_told_step_by_step_and_claimed_once_still(intake: IntakeFixture) -> None:
    folder = intake.upload(files={})
    intake.step()
    assert intake.told == [
        ("spring", Status.WAITING, "just seen"),
        ("spring", Status.WAITING, "no outfit.yaml yet"),
    ]
    (folder / "outfit.yaml").write_bytes(MANIFEST)
    intake.step(2.0)
    assert intake.said() == "waiting: missing anna.jpg, shirt.jpg"
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    intake.step(2.0)
    assert intake.said() == "waiting: missing shirt.jpg"
    (folder / "shirt.jpg").write_bytes(FILES["shirt.jpg"])
    assert intake.step(2.0) <= SETTLE_S
    assert intake.said() == "waiting: still being written"
    intake.step(SETTLE_S - 0.1)
    assert intake.said() == "waiting: still being written"
    intake.step(0.1)
    assert intake.said() == "queued: 1 picture to make"
    (record,) = intake.ledger.next_looks(intake.now_s, 5)
    assert record.look.options.seed is not None
    assert intake.job().files == {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert list(folder.iterdir()) == []
    told = len(intake.told)
    intake.step(2.0)
    assert len(intake.told) == told and len(intake.ledger.jobs()) == 1


def test_a_file_that_grows_is_never_taken_even_across_restarts(intake: IntakeFixture) -> None:
    intake.upload()
    for size in range(40):
        with (intake.inputs / "spring" / "anna.jpg").open("ab") as file:
            file.write(b"x")
        os.utime(intake.inputs / "spring" / "anna.jpg", (1e9, 1e9))
        intake.step(SETTLE_S - 1)
        if size % 10 == 5:
            intake.restart()
    assert intake.said() == "waiting: still being written"
    intake.settle()
    assert intake.job().status is Status.QUEUED


def test_a_restart_gives_no_upload_away(intake: IntakeFixture) -> None:
    intake.upload()
    intake.restart()
    intake.step(1e6)
    assert intake.said() == "waiting: still being written"


def test_a_truncated_picture_waits_and_is_taken_when_it_is_whole(intake: IntakeFixture) -> None:
    folder = intake.upload(files={**FILES, "anna.jpg": FILES["anna.jpg"][:400]})
    intake.settle()
    assert intake.said() == "waiting: anna.jpg ends early."
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    intake.settle()
    assert intake.job().status is Status.QUEUED


def test_a_text_named_jpg_is_invalid_until_it_is_replaced(intake: IntakeFixture) -> None:
    folder = intake.upload(files={**FILES, "anna.jpg": b"<html>", "shirt.jpg": b"no picture"})
    intake.settle()
    assert intake.said() == (
        "invalid: anna.jpg is not a JPEG, PNG, WebP or AVIF picture."
        " shirt.jpg is not a JPEG, PNG, WebP or AVIF picture."
    )
    for name in ("anna.jpg", "shirt.jpg"):
        (folder / name).write_bytes(FILES[name])
    intake.settle()
    assert intake.job().status is Status.QUEUED


def test_half_a_manifest_is_no_fault_before_the_folder_is_still(intake: IntakeFixture) -> None:
    folder = intake.upload(files={**FILES, "outfit.yaml": MANIFEST + b"colour: red\n"})
    intake.step()
    assert intake.said() == "waiting: still being written"
    intake.step(SETTLE_S)
    assert intake.said().startswith("invalid: outfit.yaml:3: ")
    (folder / "outfit.yaml").write_bytes(MANIFEST)
    intake.settle()
    assert intake.job().status is Status.QUEUED


def test_an_upload_left_alone_stalls_and_any_change_revives_it(intake: IntakeFixture) -> None:
    folder = intake.upload(files={"outfit.yaml": MANIFEST})
    intake.step()
    for _ in range(20):
        intake.step(31.0)
    assert intake.said() == "stalled: missing anna.jpg, shirt.jpg; nothing has changed for 10 min"
    for _ in range(2):  # settings read again, or another start: still nothing has changed
        intake.restart()
        intake.settle()
    assert intake.said().startswith("stalled") and intake.told == []
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    intake.step(31.0)
    assert intake.said() == "waiting: missing shirt.jpg"


def test_a_stalled_upload_that_changed_in_place_waits_again(intake: IntakeFixture) -> None:
    folder = intake.upload(files={**FILES, "anna.jpg": FILES["anna.jpg"][:300]})
    for _ in range(21):
        intake.step(31.0)
    assert intake.said().startswith("stalled: anna.jpg")
    intake.restart()
    intake.settle()
    assert intake.told == []
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"][:350])
    intake.settle()
    assert intake.said().startswith("waiting: anna.jpg")


def test_a_name_that_differs_by_capitals_gets_a_hint(intake: IntakeFixture) -> None:
    intake.upload(files={"outfit.yaml": MANIFEST, "Anna.JPG": FILES["anna.jpg"], "shirt.jpg": FILES["shirt.jpg"]})
    intake.step()
    assert intake.said() == "waiting: missing anna.jpg (outfit.yaml:1: 'Anna.JPG' is there: names must match exactly.)"


def test_ready_needs_no_stillness_but_everything_else(intake: IntakeFixture) -> None:
    folder = intake.upload(files={"READY": b"", "outfit.yaml": MANIFEST, "anna.jpg": FILES["anna.jpg"]})
    intake.step()
    assert intake.said() == "waiting: missing shirt.jpg"
    (folder / "shirt.jpg").write_bytes(FILES["shirt.jpg"])
    intake.step()
    assert intake.job().status is Status.QUEUED


def test_a_folder_renamed_from_a_dot_name_came_whole(intake: IntakeFixture) -> None:
    intake.upload(".spring")
    intake.step()
    (intake.inputs / ".spring").rename(intake.inputs / "spring")
    intake.watcher.notice(str(intake.inputs / ".spring"), str(intake.inputs / "spring"))
    intake.step()
    assert intake.job().status is Status.QUEUED


def test_sums_that_do_not_match_yet_wait(intake: IntakeFixture) -> None:
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in FILES.items())
    folder = intake.upload(files={**FILES, "anna.jpg": picture(9), "SHA256SUMS": sums.encode()})
    intake.settle()
    assert intake.said() == "waiting: anna.jpg does not match SHA256SUMS yet"
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    intake.settle()
    assert intake.job().status is Status.QUEUED
    assert intake.decoder.proven == {"anna.jpg", "shirt.jpg"}


def test_every_file_that_the_sums_name_is_waited_for(intake: IntakeFixture) -> None:
    files = {**FILES, "outfit.yaml": b"people: ['*.jpg']\nupper: shirt.jpg\n"}
    sums = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\r\n" for name, data in {**files, "ben.jpg": picture(3)}.items()
    )
    folder = intake.upload(files={**files, "SHA256SUMS": b"\xef\xbb\xbf" + sums.encode()})
    intake.settle()
    assert intake.said() == "waiting: missing ben.jpg, which SHA256SUMS names"
    (folder / "ben.jpg").write_bytes(picture(3))
    intake.settle()
    assert intake.job().status is Status.QUEUED
    assert intake.decoder.proven == {"anna.jpg", "ben.jpg", "shirt.jpg"}


def test_without_sums_nothing_is_proven(intake: IntakeFixture) -> None:
    intake.upload()
    intake.settle()
    assert intake.job().status is Status.QUEUED
    assert intake.decoder.seen and not intake.decoder.proven


def test_sums_that_cannot_be_read_are_said_once_they_are_still(intake: IntakeFixture) -> None:
    intake.upload(files={**FILES, "SHA256SUMS": b"nonsense\n"})
    intake.step()
    assert intake.said() == "waiting: still being written"
    intake.settle()
    assert intake.said().startswith("invalid: SHA256SUMS:1: this is no line of sha256sum.")


def test_a_manifest_under_another_name_is_pointed_out(intake: IntakeFixture) -> None:
    intake.upload(files={**{name: FILES[name] for name in ("anna.jpg", "shirt.jpg")}, "outfit.yaml.txt": MANIFEST})
    intake.settle()
    assert intake.said() == "waiting: no outfit.yaml yet: 'outfit.yaml.txt' is there; rename it"


def leases_work(written: Path) -> bool:
    """Does the kernel tell of a writer here? `written` is open for writing."""
    with written.open("rb") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return error.errno == errno.EAGAIN
    return False


def test_a_file_open_for_writing_holds_its_upload_back(intake: IntakeFixture) -> None:
    folder = intake.upload()
    with (folder / "anna.jpg").open("r+b"):
        if not leases_work(folder / "anna.jpg"):
            pytest.skip("no leases on this filesystem")
        intake.settle()
        assert intake.said() == "waiting: anna.jpg is still open for writing"
        told = len(intake.told)
        for _ in range(400):
            intake.step(2.0)
        assert intake.said() == "stalled: anna.jpg is still open for writing; nothing has changed for 10 min"
        assert len(intake.told) == told + 1, "it is said once, not at every scan"
    intake.step(2.0)
    assert intake.job().status is Status.QUEUED


def test_a_folder_removed_too_early_is_cancelled_and_its_name_is_free(intake: IntakeFixture) -> None:
    folder = intake.upload(files={"outfit.yaml": MANIFEST})
    intake.step()
    shutil.rmtree(folder)
    intake.step()
    assert intake.said() == "cancelled: the folder was removed before it was complete"
    intake.upload()
    intake.settle()
    assert intake.job("spring-2").status is Status.QUEUED


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hardlink", "folder"])
def test_odd_files_are_named_and_never_block(intake: IntakeFixture, kind: str) -> None:
    folder = intake.upload()
    (folder / "anna.jpg").unlink()
    if kind == "symlink":
        (folder / "anna.jpg").symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(folder / "anna.jpg")
    elif kind == "hardlink":
        (folder / "anna.jpg").hardlink_to(folder / "shirt.jpg")
    else:
        (folder / "anna.jpg").mkdir()
    intake.settle()
    assert intake.said().startswith("invalid: 'anna.jpg' is a")
    assert intake.decoder.seen == []
    (folder / "anna.jpg").rmdir() if kind == "folder" else (folder / "anna.jpg").unlink()
    intake.upload()
    intake.settle()
    assert intake.job().status is Status.QUEUED


def test_a_symlinked_folder_and_a_strange_name_are_invalid(intake: IntakeFixture, tmp_path: Path) -> None:
    (intake.inputs / "linked").symlink_to(tmp_path)
    (intake.inputs / os.fsdecode(b"\xff\n")).mkdir()
    intake.step()
    intake.step(2.0)
    assert {job.status for job in intake.ledger.jobs()} == {Status.INVALID}
    assert all(reason.isprintable() and job_id.isprintable() for job_id, _, reason in intake.told)
    assert len(intake.told) == 4, "each is greeted and judged once"


def test_quiet_folders_are_not_read_again(intake: IntakeFixture) -> None:
    intake.upload("bad", files={**FILES, "anna.jpg": b"<html>"})
    for number in range(20):
        intake.upload(f"waiting{number}", files={"outfit.yaml": MANIFEST})
    began_s = time.process_time()
    intake.settle()
    settle_s = time.process_time() - began_s
    seen = list(intake.decoder.seen)
    for folder in intake.inputs.iterdir():
        for file in folder.glob("outfit.yaml"):
            os.utime(file, ns=(0, file.stat().st_mtime_ns))
    intake.step()
    began_s = time.process_time()
    for _ in range(100):
        intake.step(2.0)
    quiet_s = (time.process_time() - began_s) / 100
    assert intake.decoder.seen == [*seen, "anna.jpg", "shirt.jpg"], "touched once, read once more"
    assert quiet_s < settle_s / 10, "a small part of what it takes to read them"
