"""A running daemon's order of writes, syncs and renames, recorded; and what a power cut leaves of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

CAMPAIGNS = Path(__file__).parents[1] / "campaigns"
sys.path.insert(0, str(CAMPAIGNS))

from recording import Record, Recorder  # noqa: E402 - the campaigns are no package
from storm import Box  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, to record what is written")


class Run:
    """One job with two pictures, made by a recorded daemon."""

    def __init__(self, root: Path, place: Path) -> None:
        self.box = Box(root)
        self.box.upload(0)
        recorder = Recorder(place, root)
        daemon = self.box.start("--once", **recorder.environment)
        assert daemon.wait(120) == 0, self.box.words()
        self.records: Sequence[Record] = recorder.records()
        ledger = [each.inode for each in self.records if each.kind == "c" and each.name == "ledger.db-wal"]
        self.journals = set(ledger)

    def named(self, name: str) -> int:
        """When a file got its final name."""
        return max(at for at, each in enumerate(self.records) if each.kind == "r" and each.new_name == name)

    def synced_before(self, inode: int, at: int) -> bool:
        """Was this file synced after its last write, and before `at`?"""
        kinds = [each.kind for each in self.records[:at] if each.inode == inode and each.kind in "wts"]
        return bool(kinds) and kinds[-1] == "s"

    def synced_at(self, inode: int, after: int) -> int:
        """When this folder was synced next."""
        return next(
            at for at, each in enumerate(self.records) if at > after and (each.kind, each.inode) == ("s", inode)
        )

    def ledger_says(self, text: str) -> int:
        """When the ledger was first told of this text."""
        told = (
            at
            for at, each in enumerate(self.records)
            if each.kind == "w" and each.inode in self.journals and text.encode() in each.data
        )
        return next(told)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("home") / "box", tmp_path_factory.mktemp("recording"))


def test_the_recording_has_what_the_disk_has(run: Run, tmp_path: Path) -> None:
    """Or nothing that is said here would mean anything."""
    report = run.box.outputs / "j0" / "report.json"
    written = [each for each in run.records if each.inode == report.stat().st_ino and each.kind == "w"]
    assert b"".join(each.data for each in written) == report.read_bytes()


def test_a_picture_and_its_name_are_durable_before_the_ledger_says_done(run: Run) -> None:
    pictures = sorted((run.box.outputs / "j0").glob("anna.*.png"))
    assert len(pictures) == 2
    for picture in pictures:
        at = run.named(picture.name)
        assert run.synced_before(picture.stat().st_ino, at), f"{picture.name} got its name before its data was safe"
        synced = run.synced_at(picture.parent.stat().st_ino, at)
        assert synced < run.ledger_says(f'"{picture.name}"')


def test_a_receipt_is_durable_before_its_picture_has_a_name(run: Run) -> None:
    receipts = run.box.inputs / ".spool" / "jobs" / "j0" / "receipts"
    for receipt in sorted(receipts.iterdir()):
        at = run.named(receipt.name)
        assert run.synced_before(receipt.stat().st_ino, at)
        picture = json.loads(receipt.read_text())["file"]
        assert run.synced_at(receipts.stat().st_ino, at) < run.named(picture)


def test_the_report_comes_last_and_is_durable(run: Run) -> None:
    folder = run.box.outputs / "j0"
    at = run.named("report.json")
    assert sum(each.new_name == "report.json" for each in run.records) == 1, "one before would mean complete, too"
    for path in folder.glob("*.*"):
        if path.name not in ("report.json", "job.log", "index.html"):
            assert run.named(path.name) < at, f"{path.name} comes after the report, which means complete"
            assert run.synced_before(path.stat().st_ino, len(run.records)), f"{path.name} was never synced"
    assert run.synced_before((folder / "report.json").stat().st_ino, at)
    synced = run.synced_at(folder.stat().st_ino, at)
    confirmed = [n for n, each in enumerate(run.records) if n > synced and each.inode in run.journals]
    assert confirmed, "the ledger was told after the report was durable"


def test_the_copies_are_durable_before_the_claim_and_the_move_before_the_queue(run: Run) -> None:
    job = run.box.inputs / ".spool" / "jobs" / "j0"
    begun = min(run.ledger_says(hashlib.sha256(copy.read_bytes()).hexdigest()) for copy in (job / "snapshot").iterdir())
    for copy in sorted((job / "snapshot").iterdir()):
        assert run.synced_before(copy.stat().st_ino, begun), f"{copy.name} was claimed before its copy was safe"
    made = next(at for at, each in enumerate(run.records) if each.kind == "m" and each.name == "snapshot")
    created = max(at for at, each in enumerate(run.records) if each.parent == run.records[made].inode)
    assert run.synced_at(run.records[made].inode, created) < begun
    moved = run.named("upload")
    assert run.synced_at(run.records[begun].inode, begun) < moved, "the intent must be durable before the move"
    queued = run.ledger_says("2 pictures to make")
    for folder in (run.records[moved].parent, run.records[moved].other):
        assert run.synced_at(folder, moved) < queued


def test_the_empty_folder_is_gone_for_good_before_it_is_forgotten(run: Run) -> None:
    inputs = run.box.inputs.stat().st_ino
    gone = next(at for at, each in enumerate(run.records) if (each.kind, each.parent, each.name) == ("u", inputs, "j0"))
    told = next(at for at, each in enumerate(run.records) if at > gone and each.inode in run.journals)
    assert run.synced_at(inputs, gone) < told


@pytest.mark.slow
def test_power_cuts_at_some_syncs(tmp_path: Path) -> None:
    command = [sys.executable, str(CAMPAIGNS / "power_cuts.py"), "--step", "30", "--seed", "11"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " 0 broken" in done.stdout
