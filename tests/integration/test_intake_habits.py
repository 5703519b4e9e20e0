"""What people and their programs put into `inputs/` beside uploads: nothing of it is passed over in silence."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger
from support.intake_fixture import FILES, SETTLE_S, IntakeFixture

from fastfit_watch.cli.doctor.finding import Level
from fastfit_watch.cli.doctor.folders import examine_folders
from fastfit_watch.cli.status.overview import as_data, take_overview
from fastfit_watch.cli.status.table import draw
from fastfit_watch.config.paths import Paths
from fastfit_watch.domain.job import Status

SYSTEM = ("lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "System Volume Information")


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[IntakeFixture]:
    with IntakeFixture.at(tmp_path / "inputs") as intake:
        yield intake


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(number)


def status_lines(intake: IntakeFixture) -> str:
    paths = Paths(intake.inputs, intake.inputs / "outputs", intake.inputs / "logs")
    overview = take_overview(intake.ledger, paths, intake.now_s)
    assert as_data(overview)["loose_files"]["count"] == overview.loose.count
    return "\n".join(draw(overview, io.StringIO(), None, 10))


def test_files_directly_in_inputs_are_said_once_with_the_fix(intake: IntakeFixture, warnings: list[str]) -> None:
    for name, data in FILES.items():  # scp good/* box:inputs/
        (intake.inputs / name).write_bytes(data)
        intake.step(1.0)
    assert warnings == [], "more may be on its way"
    for _ in range(5):
        intake.step(SETTLE_S)
    (warning,) = warnings
    assert warning.startswith("3 files lie directly in inputs/ and are not used: anna.jpg, outfit.yaml, shirt.jpg.")
    assert "a folder of its own" in warning
    assert warning in status_lines(intake)
    (finding,) = [each for each in examine_folders(intake.config, None) if each.check == "loose files"]
    assert finding.level is Level.WARN and f"{finding.message} {finding.fix}" == warning
    assert intake.ledger.jobs() == []
    for name in FILES:
        (intake.inputs / name).unlink()
    intake.step(SETTLE_S)
    assert "directly in" not in status_lines(intake)


def test_a_zip_is_called_an_archive(intake: IntakeFixture, warnings: list[str]) -> None:
    (intake.inputs / "spring.zip").write_bytes(b"PK")
    (intake.inputs / "anna.jpg").write_bytes(FILES["anna.jpg"])
    intake.settle()
    (warning,) = warnings
    assert warning.endswith("spring.zip is an archive: unpack it, and upload the folder.")


def test_folders_of_the_system_are_no_jobs_and_doctor_lists_them(intake: IntakeFixture, warnings: list[str]) -> None:
    for name in SYSTEM:
        (intake.inputs / name).mkdir()
        (intake.inputs / name / "desktop.ini").touch()
    intake.settle()
    assert (intake.ledger.jobs(), warnings) == ([], [])
    (finding,) = [each for each in examine_folders(intake.config, None) if each.check == "system"]
    assert finding.level is Level.OK and all(name in finding.message for name in SYSTEM)


@pytest.mark.parametrize("name", [*SYSTEM, ".Trashes"])
def test_folders_of_the_system_in_an_upload_are_ignored(intake: IntakeFixture, name: str) -> None:
    folder = intake.upload()
    (folder / name).mkdir()
    (folder / name / "desktop.ini").touch()
    intake.settle()
    assert intake.job().status is Status.QUEUED


def test_a_file_manager_that_opens_an_empty_folder_makes_no_upload(intake: IntakeFixture) -> None:
    folder = intake.upload()
    intake.settle()
    (folder / ".DS_Store").touch()
    (folder / "Thumbs.db").touch()
    intake.step(2.0)
    intake.finish()
    for _ in range(3):
        intake.step(2.0)
    assert [job.id for job in intake.ledger.jobs()] == ["spring"]
    intake.upload()
    intake.settle()
    assert intake.job("spring-2").status is Status.QUEUED


def test_a_hidden_partial_file_holds_its_upload_back_until_the_file_is_there(intake: IntakeFixture) -> None:
    folder = intake.upload(files={**FILES, "outfit.yaml": b"people: ['*.jpg']\nupper: shirt.jpg\n"})
    (folder / ".ben.jpg.Ab3xYz").write_bytes(FILES["shirt.jpg"][:100])
    intake.settle()
    assert intake.said() == "waiting: .ben.jpg.Ab3xYz is not uploaded to its end yet"
    (folder / ".ben.jpg.Ab3xYz").write_bytes(FILES["anna.jpg"])
    (folder / ".ben.jpg.Ab3xYz").rename(folder / "ben.jpg")
    intake.settle()
    assert intake.said() == "queued: 2 pictures to make"


def test_a_partial_file_that_an_aborted_attempt_left_does_not_hold_back(intake: IntakeFixture) -> None:
    folder = intake.upload()
    (folder / ".anna.jpg.Ab3xYz").write_bytes(FILES["anna.jpg"][:100])
    intake.settle()
    assert intake.job().status is Status.QUEUED


@pytest.mark.parametrize("name", ["Foto\u202f1.jpg", "花子\u30001.jpg", "a\u00a0b.jpg", "नमस्ते\u200d.jpg"])
def test_spaces_and_joiners_of_all_scripts_may_be_in_names(intake: IntakeFixture, name: str) -> None:
    manifest = f'person: "{name}"\nupper: shirt.jpg\n'.encode()
    intake.upload(files={"outfit.yaml": manifest, name: FILES["anna.jpg"], "shirt.jpg": FILES["shirt.jpg"]})
    intake.settle()
    assert intake.job().status is Status.QUEUED


@pytest.mark.parametrize("name", [b"a\nb.jpg", b"a\x1b[31m.jpg", "a\u202egpj.jpg".encode(), b"\xff.jpg"])
def test_unsafe_names_are_refused_where_they_are_used_and_quoted(intake: IntakeFixture, name: bytes) -> None:
    folder = intake.upload()
    (folder / os.fsdecode(name)).write_bytes(FILES["anna.jpg"])
    intake.settle()
    assert intake.job().status is Status.QUEUED, "nobody uses it"
    intake.upload("all", files={**FILES, "outfit.yaml": b"people: ['*.jpg']\nupper: shirt.jpg\n"})
    (intake.inputs / "all" / os.fsdecode(name)).write_bytes(FILES["anna.jpg"])
    intake.settle()
    assert intake.said("all").startswith("invalid: ") and "cannot be shown" in intake.said("all")
    assert intake.said("all").isprintable()


@pytest.mark.parametrize("name", ["RETRY.txt", "retry", "Retry"])
def test_a_request_is_carried_out_in_any_spelling(intake: IntakeFixture, name: str) -> None:
    folder = intake.upload()
    (folder / "cancel.txt").touch()
    intake.settle()
    assert intake.said() == "cancelled: cancelled by request"
    (folder / name).touch()
    intake.settle()
    assert intake.job().status is Status.QUEUED and not (folder / name).exists()


def test_what_sha256sums_names_is_waited_for_but_not_itself_nor_litter(intake: IntakeFixture) -> None:
    folder = intake.upload(files={**FILES, "outfit.yaml": b"people: ['*.jpg']\nupper: shirt.jpg\n"})
    names = [*FILES, "ben.jpg", "SHA256SUMS", ".DS_Store", "Thumbs.db"]
    sums = {name: hashlib.sha256((folder / name).read_bytes() if name in FILES else b"").hexdigest() for name in names}
    sums["ben.jpg"] = hashlib.sha256(FILES["anna.jpg"]).hexdigest()
    (folder / "SHA256SUMS").write_text("".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()))
    intake.settle()
    assert intake.said() == "waiting: missing ben.jpg, which SHA256SUMS names"
    (folder / "ben.jpg").write_bytes(FILES["anna.jpg"])
    intake.settle()
    assert intake.said() == "queued: 2 pictures to make"


def test_a_picture_without_its_end_is_waited_for_unless_sha256sums_proves_it(intake: IntakeFixture) -> None:
    cut = FILES["anna.jpg"][:-40]
    folder = intake.upload(files={**FILES, "anna.jpg": cut})
    intake.settle()
    assert intake.job().status is Status.WAITING
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(cut).hexdigest()}  anna.jpg\n")
    intake.settle()
    assert intake.job().status is Status.INVALID and "save it anew" in intake.said()
