"""Whose picture is it: receipts against the ledger."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from fastfit_watch.domain.job import Job, LookRecord, LookResult, LookStatus, Status
from fastfit_watch.domain.look import Category, ImageFormat, Look, SamplingOptions
from fastfit_watch.domain.receipts import receipt_fields, subject_of
from fastfit_watch.imaging.codec import encode_image
from fastfit_watch.reporting.verification import find_proven_result

FILES = {"anna.jpg": "aa" * 32, "shirt.jpg": "bb" * 32, "outfit.yaml": "cc" * 32}
JOB = Job("spring", "spring", Status.RUNNING, "", 1.0, 1.0, manifest="outfit.yaml", files=FILES)
LOOK = Look("anna.jpg", "casual", {Category.UPPER: "shirt.jpg"}, SamplingOptions(steps=9, seed=7))
RECORD = LookRecord("spring", 0, LOOK, LookStatus.RUNNING, attempts=2)
MARKS = {"seed": "7", "person_sha256": "aa" * 32, "upper_sha256": "bb" * 32}


def make_picture(folder: Path, marks: dict[str, str] = MARKS) -> LookResult:
    data = encode_image(Image.new("RGB", (3, 4), "red"), ImageFormat.PNG, marks)
    (folder / "anna.casual.png").write_bytes(data)
    return LookResult("anna.casual.png", hashlib.sha256(data).hexdigest(), 4, 3, {}, None, "cpu")


def write_receipt(folder: Path, fields: dict[str, object]) -> Path:
    receipt = folder / "anna.casual.json"
    receipt.write_text(json.dumps(fields), encoding="utf-8")
    return receipt


def test_the_receipt_of_this_very_attempt_is_believed(tmp_path: Path) -> None:
    result = make_picture(tmp_path)
    receipt = write_receipt(tmp_path, receipt_fields(result, subject_of(JOB, RECORD)))
    assert find_proven_result(receipt, tmp_path, JOB, RECORD) == result


@pytest.mark.parametrize(
    ("job", "record"),
    [
        (replace(JOB, id="spring-2"), RECORD),
        (replace(JOB, files={**FILES, "anna.jpg": "dd" * 32}), RECORD),
        (JOB, replace(RECORD, attempts=3)),
        (JOB, replace(RECORD, look=replace(LOOK, options=SamplingOptions(steps=9, seed=8)))),
        (JOB, replace(RECORD, look=replace(LOOK, options=SamplingOptions(steps=10, seed=7)))),
    ],
    ids=["another job", "another upload", "another attempt", "another seed", "other options"],
)
def test_a_receipt_of_anything_else_is_not(tmp_path: Path, job: Job, record: LookRecord) -> None:
    receipt = write_receipt(tmp_path, receipt_fields(make_picture(tmp_path), subject_of(job, record)))
    assert find_proven_result(receipt, tmp_path, JOB, RECORD) is None


def test_a_receipt_proves_only_the_picture_of_its_look_and_only_while_it_is_whole(tmp_path: Path) -> None:
    result = make_picture(tmp_path)
    (tmp_path / "elsewhere.png").write_bytes((tmp_path / result.file).read_bytes())
    elsewhere = receipt_fields(replace(result, file="elsewhere.png"), subject_of(JOB, RECORD))
    assert find_proven_result(write_receipt(tmp_path, elsewhere), tmp_path, JOB, RECORD) is None
    receipt = write_receipt(tmp_path, receipt_fields(result, subject_of(JOB, RECORD)))
    (tmp_path / result.file).write_bytes(b"torn")
    assert find_proven_result(receipt, tmp_path, JOB, RECORD) is None
    (tmp_path / result.file).unlink()
    assert find_proven_result(receipt, tmp_path, JOB, RECORD) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"subject": {}}', "\x00"])
def test_what_is_no_receipt_proves_nothing(tmp_path: Path, text: str) -> None:
    make_picture(tmp_path)
    receipt = tmp_path / "anna.casual.json"
    receipt.write_text(text, encoding="utf-8")
    assert find_proven_result(receipt, tmp_path, JOB, RECORD) is None
    assert find_proven_result(tmp_path / "nothing.json", tmp_path, JOB, RECORD) is None


@pytest.mark.parametrize(
    ("marks", "believed"),
    [
        (MARKS, True),
        ({**MARKS, "seed": "8"}, False),
        ({**MARKS, "person_sha256": "dd" * 32}, False),
        ({**MARKS, "upper_sha256": "dd" * 32}, False),
        ({**MARKS, "shoe_sha256": "dd" * 32}, False),
        ({"seed": "7"}, False),
    ],
)
def test_a_receipt_of_version_0_1_0_is_believed_where_the_picture_agrees_with_the_ledger(
    tmp_path: Path, marks: dict[str, str], believed: bool
) -> None:
    result = make_picture(tmp_path, marks)
    receipt = write_receipt(tmp_path, asdict(result))
    assert find_proven_result(receipt, tmp_path, JOB, RECORD) == (result if believed else None)
