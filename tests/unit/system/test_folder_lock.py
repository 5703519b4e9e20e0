"""A folder held for one process, whatever happens to the lock file in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastfit_watch.system.folder_lock import FolderLock, FolderTaken


def test_a_second_holder_is_refused_and_learns_who_is_there(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path, "lock"), FolderLock(tmp_path, "lock")
    first.take()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(FolderTaken, match=str(os.getpid())):
        second.take()
    assert first.is_held() and not second.is_held()
    first.release()
    assert (tmp_path / "lock").read_text() == ""
    second.take()
    second.release()


def test_removing_the_file_frees_nothing_and_it_is_made_again(tmp_path: Path) -> None:
    first = FolderLock(tmp_path, "lock")
    first.take()
    (tmp_path / "lock").unlink()
    with pytest.raises(FolderTaken):
        FolderLock(tmp_path, "lock").take()
    assert first.is_held()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    first.release()


def test_a_folder_that_was_replaced_is_not_held(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    lock = FolderLock(folder, "lock")
    lock.take()
    shutil.rmtree(folder)
    assert not lock.is_held()
    folder.mkdir()
    assert not lock.is_held()
    lock.release()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from fastfit_watch.system.folder_lock import FolderLock;"
        "FolderLock(Path(sys.argv[1]), 'lock').take(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert (tmp_path / "lock").read_text().strip().isdigit()
    lock = FolderLock(tmp_path, "lock")
    lock.take()
    lock.release()
