"""Small uploads that people got wrong, or that went wrong with us: `check` and the daemon judge each of them alike.

Each folder of `tests/cases/` is one upload, made for this project after public reports.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.intake_fixture import IntakeFixture

from fastfit_watch.cli.check import check_upload
from fastfit_watch.domain.job import Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.intake.decoder_pool import DecoderPool

CASES = Path(__file__).parents[1] / "cases"
TAKEN = (Status.QUEUED, "1 picture to make")
# What the daemon makes of each, and words that both say.
RIGHT: dict[str, tuple[Status, str]] = {
    "02-winrecycle": TAKEN,
    "05-smartquotes": (Status.INVALID, "quotes"),
    "07b-comma-list": (Status.INVALID, "Put brackets round a list"),
    "07n-case": (Status.WAITING, "'anna.jpg' is there"),
    "08-yamltxt": (Status.WAITING, "'outfit.yaml.txt' is there"),
    "09c-both": (Status.INVALID, "too much alike"),
    "10b-hash-unq": (Status.WAITING, "put the name in quotes"),
    "10f-macshot-extra": TAKEN,
    "10i-ideographic": TAKEN,
    "11-hindi-look": TAKEN,
    "13-glob-JPG": (Status.QUEUED, "2 pictures to make"),
    "14-check-says-good-daemon-waits": (Status.WAITING, "ben.jpg.filepart is not uploaded to its end yet"),
    "14d-rclone-glob": (Status.WAITING, "ben.jpg.a1b2c3d4.partial is not uploaded to its end yet"),
    "gray16-trns": TAKEN,
    "icc-gimplinear": TAKEN,
    "icc-huge-png-comp": TAKEN,
    "mac-icon": TAKEN,
    "noeoi-sums": TAKEN,
    "png-badcrc-text": TAKEN,
    "size-16x16": (Status.INVALID, "only 16 x 16 pixels"),
    "sums-bom-crlf": TAKEN,
    "sums-glob-missing": (Status.WAITING, "missing ben.jpg, which SHA256SUMS names"),
    "tabsep": (Status.INVALID, "not a tab"),
}


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[IntakeFixture]:
    with closing(DecoderPool(Limits())) as decoder, IntakeFixture.at(tmp_path / "inputs", decoder) as intake:
        yield intake


def test_every_case_has_its_right_answer() -> None:
    assert {folder.name for folder in CASES.iterdir()} == set(RIGHT)


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_check_and_the_daemon_agree(intake: IntakeFixture, name: str) -> None:
    folder = intake.inputs / name
    shutil.copytree(CASES / name, folder)
    result = check_upload(folder, intake.limits)
    intake.settle()
    job = intake.job(name)
    assert result.ok == (job.status is Status.QUEUED), (job.reason, result.problems)
    status, words = RIGHT[name]
    assert (job.status, words in job.reason) == (status, True), job.reason
    assert result.ok or words in " ".join(result.problems)
