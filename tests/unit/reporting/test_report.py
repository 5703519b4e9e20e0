"""Status lines, report.json, the contact sheet and `status`: all from a real ledger and real pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import ClaimIntent, Job, LookProgress, LookResult, Status
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.domain.text import duration
from fastfit_watch.reporting import report, status_line
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = Config(inputs=tmp_path / "inputs", outputs=tmp_path / "outputs")
    SpoolPaths(config.inputs).root.mkdir(parents=True)
    return config


@pytest.fixture
def ledger(config: Config) -> Ledger:
    return Ledger(SpoolPaths(config.inputs).ledger)


def _claim(config: Config, ledger: Ledger, name: str, people: tuple[str, ...] = ("anna.jpg", "ben.jpg")) -> Job:
    """A claimed job: every person in two looks, its uploads in the spool."""
    job = ledger.find_or_create_unclaimed(name, 100.0)
    looks = [
        Look(person, look, {Category.UPPER: "shirt.png"}, SamplingOptions(seed=7))
        for person in people
        for look in ("casual", "gala")
    ]
    ledger.begin_claim(ClaimIntent(job.id, "outfit.yaml", looks, {"anna.jpg": "00"}, "origin"), 101.0)
    ledger.finish_claim(job.id, 101.0)
    snapshot = SpoolPaths(config.inputs).snapshot(job.id)
    snapshot.mkdir(parents=True)
    for person in people:
        Image.new("RGB", (60, 80), "navy").save(snapshot / person)
    Image.new("RGB", (60, 80), "red").save(snapshot / "shirt.png")
    return _job(ledger, job.id)


def _job(ledger: Ledger, job_id: str) -> Job:
    job = ledger.job(job_id)
    assert job is not None
    return job


def _finish(
    config: Config, ledger: Ledger, job_id: str, key: str, now_s: float = 110.0, peak_bytes: int | None = None
) -> None:
    """Make one look's picture, as an engine would."""
    ledger.start_attempt(job_id, key, now_s - 5)
    folder = config.outputs / job_id
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (192, 256), (10, 200, 30)).save(folder / f"{key}.png")
    result = LookResult(f"{key}.png", "ab" * 32, 256, 192, {"denoise": 2.5, "decode": 0.5}, peak_bytes, "cpu")
    ledger.finish_look(job_id, key, result, now_s)


def test_the_peak_of_graphics_memory_stands_in_the_report(config: Config, ledger: Ledger) -> None:
    job = _claim(config, ledger, "spring", ("anna.jpg",))
    peaks = {"anna.casual": 6 * 2**30, "anna.gala": 5 * 2**30}
    for key, peak_bytes in peaks.items():
        _finish(config, ledger, job.id, key, peak_bytes=peak_bytes)
    final = ledger.settle_job(job.id, 113.0)
    assert final is not None
    report.publish_final(config, final, ledger.looks(job.id))
    written = json.loads((config.outputs / job.id / "report.json").read_text(encoding="utf-8"))
    assert {look["look"]: look["peak_vram_bytes"] for look in written["looks"]} == peaks
    assert written["peak_vram_bytes"] == 6 * 2**30


def test_status_lines_through_a_job_s_life(config: Config, ledger: Ledger) -> None:
    job = ledger.find_or_create_unclaimed("spring", 100.0)
    waiting = ledger.set_unclaimed_status(job.id, Status.WAITING, "missing anna.jpg", 100.0)
    assert status_line.status_line(waiting, [], None, 0) == "waiting: missing anna.jpg"
    job = _claim(config, ledger, "spring")
    assert status_line.status_line(job, ledger.looks(job.id), None, 0) == "queued: next in line"
    assert status_line.status_line(job, ledger.looks(job.id), None, 2) == "queued: 2 jobs before this one"
    _finish(config, ledger, job.id, "anna.casual")
    progress = LookProgress("anna.gala", "denoise", 3, 30, eta_s=40.2)
    line = status_line.status_line(_job(ledger, job.id), ledger.looks(job.id), progress, 0)
    assert line.startswith("running: 1 of 4, about 40 s left")


def test_a_job_cancelled_in_work_says_what_is_made_and_what_is_in_hand(config: Config, ledger: Ledger) -> None:
    job = _claim(config, ledger, "spring")
    _finish(config, ledger, job.id, "anna.casual")
    ledger.start_attempt(job.id, "anna.gala", 111.0)
    cancelled = ledger.requests.cancel(job.id, 112.0)
    line = status_line.status_line(cancelled, ledger.looks(job.id), None, 0)
    assert line == "running: cancelled by request, 1 of 4 made, 1 in hand to be finished first"


def test_final_job_has_sheet_status_and_last_of_all_a_report(config: Config, ledger: Ledger) -> None:
    job = _claim(config, ledger, "spring")
    for key in ("anna.casual", "anna.gala", "ben.casual"):
        _finish(config, ledger, job.id, key)
    ledger.start_attempt(job.id, "ben.gala", 111.0)
    ledger.fail_look(job.id, "ben.gala", "took the engine down three times", 112.0)
    final = ledger.settle_job(job.id, 113.0)
    assert final is not None and final.status is Status.FAILED

    report.publish_final(config, final, ledger.looks(job.id))

    folder = config.outputs / job.id
    written = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert written["status"] == "failed" and "ben.gala" in written["reason"]
    assert [look["status"] for look in written["looks"]] == ["done", "done", "done", "failed"]
    assert written["looks"][0]["options"]["seed"] == 7 and written["looks"][0]["sha256"] == "ab" * 32
    assert written["engine_seconds"] == 9.0 and written["files_sha256"] == {"anna.jpg": "00"}
    assert (folder / "status.txt").read_text(encoding="utf-8").startswith("failed: 1 of 4 looks failed")
    assert (folder / "report.json").stat().st_mtime_ns >= (folder / "sheet.jpg").stat().st_mtime_ns
    with Image.open(folder / "sheet.jpg") as sheet:
        green = np.abs(np.asarray(sheet, np.int16) - (10, 200, 30)).max(axis=2) < 30
    assert green.mean() > 0.1, "the results are on the sheet"


def test_a_result_that_was_spoilt_since_leaves_an_empty_place(config: Config, ledger: Ledger) -> None:
    job = _claim(config, ledger, "spring", ("anna.jpg",))
    for key in ("anna.casual", "anna.gala"):
        _finish(config, ledger, job.id, key)
    (config.outputs / job.id / "anna.gala.png").write_bytes(b"spoilt")
    final = ledger.settle_job(job.id, 113.0)
    assert final is not None
    report.publish_final(config, final, ledger.looks(job.id))
    assert (config.outputs / job.id / "sheet.jpg").is_file() and (config.outputs / job.id / "report.json").is_file()


def test_a_paused_queue_says_why(config: Config, ledger: Ledger) -> None:
    job = replace(_claim(config, ledger, "spring"), reason="paused: the disk is full")
    assert status_line.status_line(job, ledger.looks(job.id), None, 3) == "queued: paused: the disk is full"


def test_a_large_job_gets_several_sheets(config: Config, ledger: Ledger) -> None:
    people = tuple(f"p{number}.jpg" for number in range(8))
    job = _claim(config, ledger, "crowd", people)
    for record in ledger.looks(job.id):
        _finish(config, ledger, job.id, record.look.key)
    final = ledger.settle_job(job.id, 120.0)
    assert final is not None
    report.publish_final(config, final, ledger.looks(job.id))
    written = json.loads((config.outputs / job.id / "report.json").read_text(encoding="utf-8"))
    assert written["contact_sheets"] == ["sheet.jpg", "sheet-2.jpg"]
    assert all((config.outputs / job.id / name).is_file() for name in written["contact_sheets"])


def test_an_unchanged_status_is_not_written_again(config: Config, ledger: Ledger) -> None:
    job = _claim(config, ledger, "spring")
    status_line.publish_status(config, job, ledger.looks(job.id), None, 0)
    path = config.outputs / job.id / "status.txt"
    before = path.stat().st_ino
    status_line.publish_status(config, job, ledger.looks(job.id), None, 0)
    assert path.stat().st_ino == before
    status_line.publish_status(config, job, ledger.looks(job.id), None, 1)
    assert path.stat().st_ino != before


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (61, "61 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_status_of_done_job_counts_pictures(config: Config, ledger: Ledger) -> None:
    job = replace(_claim(config, ledger, "spring"), status=Status.DONE, started_s=100.0, finished_s=161.0)
    assert status_line.status_line(job, ledger.looks(job.id), None, 0) == "done: 4 pictures in 61 s"
