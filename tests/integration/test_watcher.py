"""The watcher with the kernel's own events, and what it says where they do not work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.intake.scan import scan
from fastfit_watch.intake.watcher import EVENTS, Doorbell, Watcher
from fastfit_watch.system.filesystem import filesystem_kind

PATIENCE_S = 60.0


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    (folder / ".spool").mkdir(parents=True)
    return folder


@pytest.fixture
def doorbell() -> Doorbell:
    return Doorbell()


@pytest.fixture
def watcher(inputs: Path, doorbell: Doorbell) -> Iterator[Watcher]:
    made = Watcher(inputs, doorbell)
    made.start()
    yield made
    made.stop()


def test_a_bell_rung_before_the_wait_is_heard_once(doorbell: Doorbell) -> None:
    doorbell.ring()
    doorbell.ring()
    assert doorbell.wait(0.0) and not doorbell.wait(0.0)


@pytest.mark.parametrize("come", ["mkdir", "mv", "mv from a dot-name"])
def test_a_new_folder_rings(inputs: Path, doorbell: Doorbell, watcher: Watcher, tmp_path: Path, come: str) -> None:
    assert watcher.mode == EVENTS
    if come == "mkdir":
        (inputs / "spring").mkdir()
    elif come == "mv":
        (tmp_path / "spring").mkdir()
        (tmp_path / "spring").rename(inputs / "spring")
    else:
        (inputs / ".spring").mkdir()
        assert not doorbell.wait(0.7), "dot-names are nobody's business"
        (inputs / ".spring").rename(inputs / "spring")
    assert doorbell.wait(PATIENCE_S)
    assert watcher.take_arrivals() == ({"spring"} if come == "mv from a dot-name" else set())
    assert watcher.take_arrivals() == set()


def test_our_own_reading_and_the_spool_ring_nothing(inputs: Path, doorbell: Doorbell, watcher: Watcher) -> None:
    (inputs / "spring").mkdir()
    (inputs / "spring" / "anna.jpg").write_bytes(b"anna")
    assert doorbell.wait(PATIENCE_S)
    time.sleep(0.6)
    doorbell.wait(0.0)
    (inputs / "spring" / "anna.jpg").read_bytes()
    scan(inputs)
    (inputs / ".spool" / "ledger.db").write_bytes(b"x")
    assert not doorbell.wait(1.0)


def test_a_removed_folder_rings(inputs: Path, doorbell: Doorbell, watcher: Watcher) -> None:
    (inputs / "spring").mkdir()
    assert doorbell.wait(PATIENCE_S)
    time.sleep(0.6)
    doorbell.wait(0.0)
    (inputs / "spring").rmdir()
    assert doorbell.wait(PATIENCE_S)


def test_inputs_that_vanished_and_came_back_are_watched_again(
    inputs: Path, doorbell: Doorbell, watcher: Watcher
) -> None:
    shutil.rmtree(inputs)
    watcher.revive()
    assert watcher.mode.startswith("polling: ") and "cannot be read" in watcher.mode
    inputs.mkdir()
    watcher.revive()
    assert watcher.mode == EVENTS
    doorbell.wait(0.0)
    (inputs / "spring").mkdir()
    assert doorbell.wait(PATIENCE_S)


def test_another_folder_in_the_place_of_inputs_is_watched(inputs: Path, doorbell: Doorbell, watcher: Watcher) -> None:
    inputs.rename(inputs.with_name("old"))
    inputs.mkdir()
    watcher.revive()
    doorbell.wait(0.0)
    (inputs / "spring").mkdir()
    assert doorbell.wait(PATIENCE_S)


def test_a_dead_observer_is_replaced(inputs: Path, doorbell: Doorbell, watcher: Watcher) -> None:
    before = set(threading.enumerate())
    observer = watcher._observer
    assert observer is not None
    observer.stop()
    observer.join()
    watcher.revive()
    assert watcher.mode == EVENTS and watcher._observer is not observer
    (inputs / "spring").mkdir()
    assert doorbell.wait(PATIENCE_S)
    assert len(threading.enumerate()) <= len(before), "no thread is left behind"


def test_an_observer_without_the_thread_that_reads_for_it_is_replaced(
    inputs: Path, doorbell: Doorbell, watcher: Watcher
) -> None:
    """It still says it is alive, and hears nothing."""
    observer = watcher._observer
    assert observer is not None
    for emitter in list(observer.emitters):
        emitter.stop()
        emitter.join(PATIENCE_S)
    assert observer.is_alive()
    watcher.revive()
    assert watcher.mode == EVENTS and watcher._observer is not observer
    (inputs / "spring").mkdir()
    assert doorbell.wait(PATIENCE_S)


def test_polling_on_request(inputs: Path, doorbell: Doorbell) -> None:
    watcher = Watcher(inputs, doorbell, "poll")
    watcher.start()
    watcher.revive()
    assert watcher.mode == "polling: asked for in the configuration"
    watcher.stop()


@pytest.mark.parametrize(("limit", "said"), [("instances", "max_user_instances"), ("watches", "max_user_watches")])
def test_the_limit_of_inotify_is_said_and_is_no_error(inputs: Path, limit: str, said: str) -> None:
    program = (
        "import sys, threading; from pathlib import Path; from fastfit_watch.intake.watcher import Doorbell, Watcher;"
        "watcher = Watcher(Path(sys.argv[1]), Doorbell()); watcher.start(); watcher.revive(); print(watcher.mode);"
        "watcher.stop(); print(threading.active_count())"
    )
    # The limits count per user namespace, so this one's limit can be 0 without harm to others.
    shell = f'echo 0 > /proc/sys/user/max_inotify_{limit} && exec "$0" -c "$1" "$2"'
    done = subprocess.run(
        ["unshare", "-r", "sh", "-c", shell, sys.executable, program, str(inputs)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "/proc/sys/user" in done.stderr:
        pytest.skip("no user namespaces here")
    mode, threads = done.stdout.splitlines()
    assert mode.startswith("polling: ") and said in mode, done.stderr
    assert threads == "1"


def test_the_scan_tells_uploads_from_loose_files_and_folders_of_the_system(inputs: Path, tmp_path: Path) -> None:
    system = ("lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "System Volume Information")
    for name in ("b", "a", ".hidden", "über uns", "花子\u3000夏", *system):
        (inputs / name).mkdir()
    for name in ("notes.txt", "spring.zip", ".DS_Store", "Thumbs.db", "Icon\r", "._anna.jpg", ".anna.jpg.Ab12Cd"):
        (inputs / name).touch()
    (inputs / "dangling").symlink_to(tmp_path / "nowhere")
    found = scan(inputs)
    assert [(entry.disk_name, entry.name, entry.fault) for entry in found.uploads] == [
        (name, name, "") for name in ("a", "b", "über uns", "花子\u3000夏")
    ]
    assert found.loose == ("dangling", "notes.txt", "spring.zip")
    assert set(found.system) == set(system)


def test_a_symlinked_folder_is_a_fault(inputs: Path) -> None:
    (inputs / "etc").symlink_to("/etc")
    (entry,) = scan(inputs).uploads
    assert "symbolic link" in entry.fault


@pytest.mark.parametrize(
    "name", [b"a\nb", b"\x1b[31mred", b"\xff\xfe", "x\u202egnp".encode(), b"x" * 255, "é".encode() * 120, b"index.html"]
)
def test_names_that_cannot_be_used_get_one_that_can(inputs: Path, name: bytes) -> None:
    (inputs / os.fsdecode(name)).mkdir()
    (entry,) = scan(inputs).uploads
    assert "Rename it" in entry.fault
    assert entry.name.isprintable() and len(entry.name.encode()) < 200 and entry.name != "index.html"
    (inputs.parent / entry.name).mkdir()


def test_two_unusable_names_get_two_others(inputs: Path) -> None:
    for name in (b"x" * 254 + b"a", b"x" * 254 + b"b"):
        (inputs / os.fsdecode(name)).mkdir()
    assert len({entry.name for entry in scan(inputs).uploads}) == 2


def test_missing_inputs_are_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        scan(tmp_path / "gone")


def test_thousands_of_folders_are_scanned_quickly(inputs: Path) -> None:
    for number in range(3_000):
        (inputs / f"j{number}").mkdir()
    began_s = time.thread_time()
    assert all((inputs / name).is_dir() for name in os.listdir(inputs))  # noqa: PTH208 - no more than the kernel's work
    asked_s, began_s = time.thread_time() - began_s, time.thread_time()
    assert len(scan(inputs).uploads) == 3_000
    assert time.thread_time() - began_s < 10 * asked_s


def test_the_kind_of_a_filesystem_is_the_one_of_its_mount(tmp_path: Path) -> None:
    wanted = subprocess.run(
        ["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.strip()
    kind = filesystem_kind(tmp_path)
    assert kind.startswith("ext") if wanted.startswith("ext") else kind
    assert filesystem_kind(Path("/proc")) == "proc"
