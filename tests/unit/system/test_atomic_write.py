"""Whole-file writes: the old file or the new one, never a part; a full disk is said in words and leaves no litter."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.system.atomic_write import (
    TEMPORARY,
    commit,
    make_folder,
    remove_temporaries,
    write_bytes,
    write_json,
    write_text,
)
from fastfit_watch.system.failpoints import VARIABLE

PLACES = ("write.create", "write.fsync", "write.rename", "write.folder")


def litter(folder: Path) -> list[Path]:
    return list(folder.glob(f"{TEMPORARY}*"))


def test_what_is_written_is_there_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"one", mode=0o600)
    assert path.read_bytes() == b"one" and stat.S_IMODE(path.stat().st_mode) == 0o600
    write_text(path, "zwö\n")
    assert path.read_bytes() == "zwö\n".encode()
    write_json(path, {"größe": [1, None]})
    assert json.loads(path.read_bytes()) == {"größe": [1, None]} and "größe" in path.read_text(encoding="utf-8")
    assert litter(tmp_path) == []


def test_a_name_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("試" * 85)
    write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
def test_a_failing_disk_is_a_storage_error(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    monkeypatch.setenv(VARIABLE, f"{place}:1:{name}")
    with pytest.raises(StorageError, match=r"Writing .*a\.txt failed: the "):
        write_bytes(path, b"new")
    assert path.read_bytes() == (b"new" if place == "write.folder" else b"old")
    assert litter(tmp_path) == []
    monkeypatch.delenv(VARIABLE)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_other_errors_come_out_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "nowhere" / "a.txt", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "folder", b"x")
    assert litter(tmp_path) == []


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_leaves_the_old_file_or_the_new_one(place: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_bytes(path, b"old" * 1000)
    program = (
        "import sys; from pathlib import Path; from fastfit_watch.system.atomic_write import write_bytes;"
        "write_bytes(Path(sys.argv[1]), b'new' * 2000)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(path)], env={**os.environ, VARIABLE: f"{place}:1"}, check=False
    )
    assert killed.returncode == -9
    assert path.read_bytes() == (b"new" * 2000 if place == "write.folder" else b"old" * 1000)


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"0" * 50_000)
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            data = path.read_bytes()
            seen.add((len(data), len(set(data))))

    reader = threading.Thread(target=read)
    reader.start()

    def write(letter: bytes) -> None:
        for _ in range(4):
            write_bytes(path, letter * 50_000)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"1", b"2")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert seen == {(50_000, 1)}
    assert litter(tmp_path) == []


def test_commit_and_folders(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    temporary = tmp_path / "a" / f"{TEMPORARY}1"
    temporary.write_bytes(b"x")
    commit(temporary, tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x" and not temporary.exists()


def test_data_and_folder_are_synced_around_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches the real calls: a file that is renamed before it is synced may be empty after a power cut."""
    calls: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_bytes(tmp_path / "a", b"x")
    assert calls == ["sync file", "rename", "sync folder"]


def test_what_a_living_process_writes_is_spared_and_what_a_dead_one_left_is_not(tmp_path: Path) -> None:
    """The gallery tidies a folder while an engine, which is another process, writes its picture there."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as engine:
        picture = tmp_path / f"{TEMPORARY}{engine.pid}-0d2a5d3f"
        picture.write_bytes(b"half")
        remove_temporaries(tmp_path, but_living=True)
        assert picture.exists()
    remove_temporaries(tmp_path, but_living=True)
    assert not picture.exists(), "the engine has ended"
    (tmp_path / f"{TEMPORARY}{os.getpid()}-00").touch()
    remove_temporaries(tmp_path)
    assert litter(tmp_path) == []
