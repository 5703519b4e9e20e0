"""`check`: what the daemon would say of a folder, before it is uploaded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fastfit_watch.cli.check import CheckResult, check_folders, check_upload, describe
from fastfit_watch.domain.limits import Limits
from fastfit_watch.system.exit_codes import ExitCode

MANIFEST = "people: [anna.jpg, ben.jpg]\nlooks:\n  a: {upper: shirt.png}\n  b: {upper: shirt.png, people: [anna.jpg]}\n"


@pytest.fixture
def spring(tmp_path: Path) -> Path:
    folder = tmp_path / "spring"
    folder.mkdir()
    (folder / "outfit.yaml").write_text(MANIFEST)
    for name in ("anna.jpg", "ben.jpg", "shirt.png"):
        Image.new("RGB", (48, 64), "navy").save(folder / name)
    return folder


def faults_of(folder: Path) -> str:
    result = check_upload(folder, Limits())
    assert not result.ok
    return "\n".join(result.problems)


def test_a_good_folder(spring: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in spring.iterdir()}
    assert check_upload(spring, Limits()) == CheckResult((), "2 people, 2 looks: 3 pictures")
    assert check_folders([spring], Limits()) is ExitCode.OK
    printed = capsys.readouterr()
    assert "good. 2 people, 2 looks: 3 pictures" in printed.out and printed.err == ""
    assert {path.name: path.stat().st_mtime_ns for path in spring.iterdir()} == before


def test_all_mistakes_of_all_folders_are_told(spring: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spring / "anna.jpg").write_bytes((spring / "anna.jpg").read_bytes()[:200])
    (spring / "shirt.png").write_text("<html>not found</html>")
    (spring / "ben.jpg").unlink()
    result = check_upload(spring, Limits())
    assert "outfit.yaml:1: 'ben.jpg' is missing." in result.problems
    assert [problem.split("'")[1] for problem in result.problems] == ["anna.jpg", "shirt.png", "ben.jpg"]
    other = spring.parent / "other"
    other.mkdir()
    assert check_folders([spring, other], Limits()) is ExitCode.INVALID
    error = capsys.readouterr().err
    words = ("3 mistakes", "ends early", "a web page", "'ben.jpg' is missing", "other: 1 mistake", "no outfit.yaml")
    for word in words:
        assert word in error


def test_faults_of_the_manifest_come_a_line_each(spring: Path) -> None:
    (spring / "outfit.yaml").write_text("person: anna.jpg\nuper: shirt.png\nsteps: 0\n")
    result = check_upload(spring, Limits())
    lines = describe(spring, result)
    assert lines[0].endswith("spring: 3 mistakes")
    assert sum(line.startswith("  outfit.yaml:") for line in lines) == 3 and "Did you mean 'upper'?" in "".join(lines)


def test_two_manifests(spring: Path) -> None:
    (spring / "outfit.yml").write_text(MANIFEST)
    assert "both outfit.yaml and outfit.yml" in faults_of(spring)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("symlink", "symbolic link"),
        ("dangling", "symbolic link"),
        ("device", "symbolic link"),
        ("hardlink", "hard link"),
        ("fifo", "FIFO"),
        ("socket", "socket"),
        ("folder", "folder"),
    ],
)
def test_only_plain_files_of_its_own(kind: str, word: str, spring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = spring / "anna.jpg"
    elsewhere = spring.parent / "elsewhere.jpg"
    path.rename(elsewhere)
    if kind == "symlink":
        path.symlink_to(elsewhere)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "hardlink":
        os.link(elsewhere, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(spring)
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("anna.jpg")
    result = check_upload(spring, Limits())
    assert len(result.problems) == 1 and word in result.problems[0] and "anna.jpg" in result.problems[0]


def test_limits_are_kept(spring: Path) -> None:
    assert "more than 2 files" in "".join(check_upload(spring, Limits(files=2)).problems)
    assert "larger than" in "".join(check_upload(spring, Limits(picture_bytes=300)).problems)
    assert "larger than" in "".join(check_upload(spring, Limits(manifest_bytes=30)).problems)


def test_what_is_no_folder(spring: Path) -> None:
    (spring.parent / "link").symlink_to(spring)
    assert "symbolic link" in faults_of(spring.parent / "link")
    assert "no folder" in faults_of(spring / "outfit.yaml")
    assert "No such file" in faults_of(spring / "nowhere")


def test_a_name_that_would_break_the_terminal_is_quoted(tmp_path: Path) -> None:
    assert "\x1b" not in describe(tmp_path / "a\x1b[31m", CheckResult(("x",)))[0]


def test_check_loads_nothing_heavy(spring: Path) -> None:
    """Pictures are decoded in a process of their own: the command itself needs no Pillow."""
    program = (
        "import sys; from pathlib import Path; from fastfit_watch.cli.check import check_folders;"
        "from fastfit_watch.domain.limits import Limits; code = check_folders([Path(sys.argv[1])], Limits());"
        "heavy = {'pydantic', 'loguru', 'PIL', 'torch', 'numpy', 'cv2', 'sqlite3', 'watchdog'};"
        "sys.exit(code or ' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(spring)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pictures_that_no_look_uses_are_named_and_are_no_mistake(spring: Path) -> None:
    Image.new("RGB", (48, 64), "navy").save(spring / "carla.png")
    result = check_upload(spring, Limits())
    assert result.ok and describe(spring, result)[1:] == ["  note: no look uses carla.png"]
