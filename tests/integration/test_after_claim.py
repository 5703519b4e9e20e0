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
from support.daemon_process import PATIENCE_S, DaemonProcess, wait_for

from fastfit_watch.domain.job import LookStatus
from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.close()


def put_files(folder: Path, look: str, colour: str) -> None:
    """Write a job's files one by one into a folder that may stand there, as scp does."""
    folder.mkdir(exist_ok=True)
    manifest = {"people": ["anna.png"], "seed": 7, "looks": {look: {"upper": "shirt.png"}}}
    (folder / "outfit.yaml").write_text(yaml.safe_dump(manifest))
    Image.new("RGB", (48, 64), colour).save(folder / "anna.png")
    Image.new("RGB", (48, 64), "red").save(folder / "shirt.png")


def names_of(daemon: DaemonProcess, job: str) -> set[str]:
    return set(daemon.pictures(job))


@pytest.mark.parametrize("manner", ["renamed in", "file by file"])
def test_the_same_name_again_while_it_runs_and_after_it_is_done(daemon: DaemonProcess, manner: str) -> None:
    def again(look: str, colour: str) -> None:
        if manner == "file by file":
            put_files(daemon.inputs / "spring", look, colour)
            return
        put_files(daemon.inputs / ".spring", look, colour)
        (daemon.inputs / ".spring").rename(daemon.inputs / "spring")

    daemon.upload("spring", "steps-a")
    daemon.start()
    wait_for(lambda: daemon.begun(), daemon)
    again("gala", "green")
    wait_for(lambda: daemon.is_final("spring") and daemon.is_final("spring-2"), daemon)
    again("beach", "yellow")
    wait_for(lambda: daemon.is_final("spring-3"), daemon)
    jobs = {"spring": "anna.steps-a.png", "spring-2": "anna.gala.png", "spring-3": "anna.beach.png"}
    for job, picture in jobs.items():
        assert names_of(daemon, job) == {picture}
        assert daemon.status(job).startswith("done")
    assert "; uploaded again: see spring-2" in daemon.status("spring")
    wait_for(lambda: daemon.status("spring-2").endswith("; uploaded again: see spring-3\n"), daemon)
    assert "again" not in daemon.status("spring-3")
    pictures = {data for job in jobs for data in daemon.pictures(job).values()}
    assert len(pictures) == 3, "each was made of its own photograph"
    wait_for(lambda: not (daemon.inputs / "spring").exists(), daemon)
    assert {path.name for path in daemon.outputs.iterdir() if (path / "report.json").exists()} == set(jobs)


@pytest.mark.parametrize("deed", ["removed", "changed", "replaced by a file"])
def test_what_happens_to_the_folder_after_the_claim_changes_no_picture(
    daemon: DaemonProcess, tmp_path: Path, deed: str
) -> None:
    (tmp_path / "calm").mkdir()
    calm = DaemonProcess(tmp_path / "calm")
    calm.upload("spring", "steps-a", "gala")
    assert calm.drain() == ExitCode.OK
    daemon.upload("spring", "steps-a", "gala")
    process = daemon.start()
    wait_for(lambda: daemon.begun(), daemon)
    place = daemon.inputs / "spring"
    if deed == "changed":
        Image.new("RGB", (48, 64), "black").save(place / "anna.png")
    else:
        place.rmdir()
    if deed == "replaced by a file":
        place.write_text("not a folder")
    wait_for(lambda: daemon.is_final("spring"), daemon)
    assert {look.status for look in daemon.looks("spring").values()} == {LookStatus.DONE}
    assert daemon.pictures("spring") == calm.pictures("spring")
    if deed == "changed":
        wait_for(lambda: daemon.status("spring-2").startswith("waiting: no outfit.yaml"), daemon)
        assert (place / "anna.png").exists(), "what was put there is an upload of its own, and nobody removes it"
    assert process.poll() is None


def test_an_upload_removed_before_its_claim_is_said_and_its_name_is_free(daemon: DaemonProcess) -> None:
    daemon.start()
    folder = daemon.inputs / "spring"
    folder.mkdir()
    (folder / "outfit.yaml").write_text("person: anna.png\nupper: shirt.png\n")
    wait_for(lambda: "missing anna.png" in daemon.status("spring"), daemon)
    (folder / "outfit.yaml").unlink()
    folder.rmdir()
    wait_for(lambda: "was removed before it was complete" in daemon.status("spring"), daemon)
    daemon.upload("spring", "gala")
    wait_for(lambda: daemon.is_final("spring-2"), daemon)
    assert daemon.status("spring-2").startswith("done")


def test_without_inotify_uploads_are_found_by_scanning_and_the_status_says_so(daemon: DaemonProcess) -> None:
    # The limit counts per user namespace, so this one's can be 0 without harm to others.
    shell = 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$0" "$@"'
    probe = subprocess.run(["unshare", "-r", "sh", "-c", shell, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no user namespaces here")
    daemon.start(through=["unshare", "-r", "sh", "-c", shell])
    daemon.upload("spring", "gala")
    wait_for(lambda: daemon.is_final("spring"), daemon)
    assert daemon.status("spring").startswith("done")
    note = json.loads(daemon.read(lambda ledger: ledger.note("daemon")))
    assert note["watch"].startswith("polling: the limit of inotify watches is reached")
    command = [sys.executable, "-m", "fastfit_watch", "status", "--config", str(daemon.root / "settings.yaml")]
    status = subprocess.run(command, cwd=daemon.root, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "polling: the limit of inotify watches is reached" in status.stdout
