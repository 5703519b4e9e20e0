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
def desk(tmp_path: Path) -> Iterator[IntakeFixture]:
    with IntakeFixture.at(tmp_path / "inputs") as desk:
        yield desk


def test_an_upload_is_told_step_by_step_and_claimed_once_still(desk: IntakeFixture) -> None:
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


def test_a_file_that_grows_is_never_taken_even_across_restarts(desk: IntakeFixture) -> None:
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


def test_a_restart_gives_no_upload_away(desk: IntakeFixture) -> None:
    desk.upload()
    desk.restart()
    desk.step(1e6)
    assert desk.said() == "waiting: still being written"


def test_a_truncated_picture_waits_and_is_taken_when_it_is_whole(desk: IntakeFixture) -> None:
    folder = desk.upload(files={**FILES, "anna.jpg": FILES["anna.jpg"][:400]})
    desk.settle()
    assert desk.said() == "waiting: anna.jpg ends early."
    (folder / "anna.jpg").write_bytes(FILES["anna.jpg"])
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_a_text_named_jpg_is_invalid_until_it_is_replaced(desk: IntakeFixture) -> None:
    folder = desk.upload(files={**FILES, "anna.jpg": b"<html>", "shirt.jpg": b"no picture"})
    desk.settle()
    assert desk.said() == (
        "invalid: anna.jpg is not a JPEG, PNG or WebP picture. shirt.jpg is not a JPEG, PNG or WebP picture."
    )
    for name in ("anna.jpg", "shirt.jpg"):
        (folder / name).write_bytes(FILES[name])
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_half_a_manifest_is_no_fault_before_the_folder_is_still(desk: IntakeFixture) -> None:
    folder = desk.upload(files={**FILES, "outfit.yaml": MANIFEST + b"colour: red\n"})
    desk.step()
    assert desk.said() == "waiting: still being written"
    desk.step(SETTLE_S)
    assert desk.said().startswith("invalid: outfit.yaml:3: ")
    (folder / "outfit.yaml").write_bytes(MANIFEST)
    desk.settle()
    assert desk.job().status is Status.QUEUED


def test_an_upload_left_alone_stalls_and_any_change_revives_it(desk: IntakeFixture) -> None:
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


def test_a_stalled_upload_that_changed_in_place_waits_again(desk: IntakeFixture) -> None:
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


def test_a_name_that_differs_by_capitals_gets_a_hint(desk: IntakeFixture) -> None:
    desk.upload(files={"outfit.yaml": MANIFEST, "Anna.JPG": FILES["anna.jpg"], "shirt.jpg": FILES["shirt.jpg"]})
    desk.step()
    assert desk.said() == "waiting: missing anna.jpg (anna.jpg is there as Anna.JPG: names must match exactly)"


def test_ready_needs_no_stillness_but_everything_else(desk: IntakeFixture) -> None:
    folder = desk.upload(files={"READY": b"", "outfit.yaml": MANIFEST, "anna.jpg": FILES["anna.jpg"]})
    desk.step()
    assert desk.said() == "waiting: missing shirt.jpg"
    (folder / "shirt.jpg").write_bytes(FILES["shirt.jpg"])
    desk.step()
    assert desk.job().status is Status.QUEUED


def test_a_folder_renamed_from_a_dot_name_came_whole(desk: IntakeFixture) -> None:
    desk.upload(".spring")
    desk.step()
    (desk.inputs / ".spring").rename(desk.inputs / "spring")
    desk.watcher.notice(str(desk.inputs / ".spring"), str(desk.inputs / "spring"))
    desk.step()
    assert desk.job().status is Status.QUEUED


def test_sums_that_do_not_match_yet_wait(desk: IntakeFixture) -> None:
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


def test_a_file_open_for_writing_holds_its_upload_back(desk: IntakeFixture) -> None:
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


def test_a_folder_removed_too_early_is_cancelled_and_its_name_is_free(desk: IntakeFixture) -> None:
    folder = desk.upload(files={"outfit.yaml": MANIFEST})
    desk.step()
    shutil.rmtree(folder)
    desk.step()
    assert desk.said() == "cancelled: the folder was removed before it was complete"
    desk.upload()
    desk.settle()
    assert desk.job("spring-2").status is Status.QUEUED


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hardlink", "folder"])
def test_odd_files_are_named_and_never_block(desk: IntakeFixture, kind: str) -> None:
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


def test_a_symlinked_folder_and_a_strange_name_are_invalid(desk: IntakeFixture, tmp_path: Path) -> None:
    (desk.inputs / "linked").symlink_to(tmp_path)
    (desk.inputs / os.fsdecode(b"\xff\n")).mkdir()
    desk.step()
    desk.step(2.0)
    assert {job.status for job in desk.ledger.jobs()} == {Status.INVALID}
    assert all(reason.isprintable() and job_id.isprintable() for job_id, _, reason in desk.told)
    assert len(desk.told) == 4, "each is greeted and judged once"


def test_quiet_folders_are_not_read_again(desk: IntakeFixture) -> None:
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
