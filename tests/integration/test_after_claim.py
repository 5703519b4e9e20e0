"""What people do with a folder once it is taken, while a daemon runs: upload it again, change it, remove it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image
from support.daemon_process import DaemonProcess, wait_for

from fastfit_watch.domain.job import LookStatus
from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def house(tmp_path: Path) -> Iterator[DaemonProcess]:
    house = DaemonProcess(tmp_path)
    yield house
    house.close()


def put_files(folder: Path, look: str, colour: str) -> None:
    """Write a job's files one by one into a folder that may stand there, as scp does."""
    folder.mkdir(exist_ok=True)
    manifest = {"people": ["anna.png"], "seed": 7, "looks": {look: {"upper": "shirt.png"}}}
    (folder / "outfit.yaml").write_text(yaml.safe_dump(manifest))
    Image.new("RGB", (48, 64), colour).save(folder / "anna.png")
    Image.new("RGB", (48, 64), "red").save(folder / "shirt.png")


def names_of(house: DaemonProcess, job: str) -> set[str]:
    return set(house.pictures(job))


@pytest.mark.parametrize("manner", ["renamed in", "file by file"])
def test_the_same_name_again_while_it_runs_and_after_it_is_done(house: DaemonProcess, manner: str) -> None:
    def again(look: str, colour: str) -> None:
        if manner == "file by file":
            put_files(house.inputs / "spring", look, colour)
            return
        put_files(house.inputs / ".spring", look, colour)
        (house.inputs / ".spring").rename(house.inputs / "spring")

    house.upload("spring", "steps-a")
    house.start()
    wait_for(lambda: house.begun(), house)
    again("gala", "green")
    wait_for(lambda: house.is_final("spring") and house.is_final("spring-2"), house)
    again("beach", "yellow")
    wait_for(lambda: house.is_final("spring-3"), house)
    jobs = {"spring": "anna.steps-a.png", "spring-2": "anna.gala.png", "spring-3": "anna.beach.png"}
    for job, picture in jobs.items():
        assert names_of(house, job) == {picture}
        assert house.status(job).startswith("done")
    pictures = {data for job in jobs for data in house.pictures(job).values()}
    assert len(pictures) == 3, "each was made of its own photograph"
    wait_for(lambda: not (house.inputs / "spring").exists(), house)
    assert {path.name for path in house.outputs.iterdir() if (path / "report.json").exists()} == set(jobs)


@pytest.mark.parametrize("deed", ["removed", "changed", "replaced by a file"])
def test_what_happens_to_the_folder_after_the_claim_changes_no_picture(
    house: DaemonProcess, tmp_path: Path, deed: str
) -> None:
    (tmp_path / "calm").mkdir()
    calm = DaemonProcess(tmp_path / "calm")
    calm.upload("spring", "steps-a", "gala")
    assert calm.drain() == ExitCode.OK
    house.upload("spring", "steps-a", "gala")
    daemon = house.start()
    wait_for(lambda: house.begun(), house)
    place = house.inputs / "spring"
    if deed == "changed":
        Image.new("RGB", (48, 64), "black").save(place / "anna.png")
    else:
        place.rmdir()
    if deed == "replaced by a file":
        place.write_text("not a folder")
    wait_for(lambda: house.is_final("spring"), house)
    assert {look.status for look in house.looks("spring").values()} == {LookStatus.DONE}
    assert house.pictures("spring") == calm.pictures("spring")
    if deed == "changed":
        wait_for(lambda: house.status("spring-2").startswith("waiting: no outfit.yaml"), house)
        assert (place / "anna.png").exists(), "what was put there is an upload of its own, and nobody removes it"
    assert daemon.poll() is None


def test_an_upload_removed_before_its_claim_is_said_and_its_name_is_free(house: DaemonProcess) -> None:
    house.start()
    folder = house.inputs / "spring"
    folder.mkdir()
    (folder / "outfit.yaml").write_text("person: anna.png\nupper: shirt.png\n")
    wait_for(lambda: "missing anna.png" in house.status("spring"), house)
    (folder / "outfit.yaml").unlink()
    folder.rmdir()
    wait_for(lambda: "was removed before it was complete" in house.status("spring"), house)
    house.upload("spring", "gala")
    wait_for(lambda: house.is_final("spring-2"), house)
    assert house.status("spring-2").startswith("done")


def test_without_inotify_uploads_are_found_by_scanning_and_the_status_says_so(house: DaemonProcess) -> None:
    # The limit counts per user namespace, so this one's can be 0 without harm to others.
    shell = 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$0" "$@"'
    probe = subprocess.run(["unshare", "-r", "sh", "-c", shell, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no user namespaces here")
    house.start(through=["unshare", "-r", "sh", "-c", shell])
    house.upload("spring", "gala")
    wait_for(lambda: house.is_final("spring"), house)
    assert house.status("spring").startswith("done")
    note = json.loads(house.read(lambda ledger: ledger.note("daemon")))
    assert note["watch"].startswith("polling: the limit of inotify watches is reached")
    command = [sys.executable, "-m", "fastfit_watch", "status", "--config", str(house.root / "settings.yaml")]
    status = subprocess.run(command, cwd=house.root, capture_output=True, text=True, timeout=60, check=False)
    assert "polling: the limit of inotify watches is reached" in status.stdout
