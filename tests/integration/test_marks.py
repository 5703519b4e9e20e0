"""Marks through the real daemon: a photograph with GPS and orientation, three formats, options for each look."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.running_daemon import RunningDaemon

from fastfit_watch.domain.look import Category
from fastfit_watch.imaging.xmp import SOURCE_TYPE, read_marks
from fastfit_watch.mini.drawing.figures import draw_garment, draw_person
from fastfit_watch.system.exit_codes import ExitCode
from fastfit_watch.system.folders import hash_file

SECRETS = (b"SecretCameraOwner", b"SecretSerial")
LOOKS = """\
person: anna.jpg
steps: 2
seed: 5
looks:
  plain: {upper: shirt.png, lower: jeans.png}
  photo: {upper: shirt.png, steps: 3, seed: 9, format: jpg, framing: paste_back, mask: worn}
  web: {lower: jeans.png, guidance: 1, format: webp}
  quick: {upper: shirt.png, preset: draft, steps: 4}
"""
OPTIONS = {
    "anna.plain.png": {
        "steps": "2",
        "seed": "5",
        "guidance": "2.5",
        "mask": "full",
        "framing": "crop",
        "format": "png",
    },
    "anna.photo.jpg": {"steps": "3", "seed": "9", "mask": "worn", "framing": "paste_back", "format": "jpg"},
    "anna.web.webp": {"steps": "2", "seed": "5", "guidance": "1.0", "format": "webp", "preset": "exact"},
    "anna.quick.png": {"preset": "draft", "steps": "4", "seed": "5"},
}
GARMENTS = {
    "anna.plain.png": {"upper", "lower"},
    "anna.photo.jpg": {"upper"},
    "anna.web.webp": {"lower"},
    "anna.quick.png": {"upper"},
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that has made the job."""
    daemon = RunningDaemon(tmp_path_factory.mktemp("marks"))
    settings = json.loads((daemon.home / "config.yaml").read_text())
    (daemon.home / "config.yaml").write_text(json.dumps(settings | {"marks": {"label": "AI-generated"}}))
    hidden = daemon.inputs / ".job"
    hidden.mkdir()
    _photograph(hidden / "anna.jpg")
    Image.fromarray(draw_garment(60, Category.UPPER, (256, 192))).save(hidden / "shirt.png")
    Image.fromarray(draw_garment(80, Category.LOWER, (256, 192))).save(hidden / "jeans.png")
    (hidden / "outfit.yaml").write_text(LOOKS)
    hidden.rename(daemon.inputs / "job")
    daemon.start()
    try:
        daemon.wait_done("job")
        yield daemon
    finally:
        daemon.stop()


def _photograph(path: Path) -> None:
    """As a phone takes it: lying on its side, with an orientation that turns it upright, GPS and names."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x013B], exif[0xA431] = (secret.decode() for secret in SECRETS)
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 14.0), 3: "E", 4: (11.0, 34.0, 31.0)}
    upright = Image.fromarray(draw_person(40, (640, 480)))
    upright.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)


def _picture(daemon: RunningDaemon, name: str) -> Path:
    return daemon.outputs / "job" / name


def test_names_and_sizes(daemon: RunningDaemon) -> None:
    folder = daemon.outputs / "job"
    assert daemon.report("job")["status"] == "done"
    assert {path.name for path in folder.glob("anna.*")} == set(OPTIONS)
    for name, kind in (("anna.plain.png", "PNG"), ("anna.photo.jpg", "JPEG"), ("anna.web.webp", "WEBP")):
        with Image.open(folder / name) as image:
            assert image.format == kind
            assert image.height > image.width, "turned upright"
            if "photo" in name:
                assert image.size == (480, 640), "pasted back into the photograph's own size"


def test_the_photograph_was_turned_upright(daemon: RunningDaemon) -> None:
    upright = draw_person(40, (640, 480)).astype(np.int16)
    with Image.open(_picture(daemon, "anna.photo.jpg")) as image:
        made = np.asarray(image.convert("RGB"), np.int16)
    head = np.abs(made[:60] - upright[:60]).max(axis=2)
    assert np.median(head) < 12, "what is not repainted is the photograph, upright"


@pytest.mark.parametrize("name", OPTIONS)
def test_pillow_reads_every_mark(name: str, daemon: RunningDaemon) -> None:
    marks = read_marks(_picture(daemon, name))
    assert OPTIONS[name].items() <= marks.items()
    sources = daemon.inputs / ".spool" / "jobs" / "job" / "snapshot"
    files = {"person": "anna.jpg", "upper": "shirt.png", "lower": "jeans.png"}
    for slot in ("person", *GARMENTS[name]):
        assert marks[f"{slot}_sha256"] == hash_file(sources / files[slot])
    assert {slot for slot in ("upper", "lower") if f"{slot}_sha256" in marks} == GARMENTS[name]
    assert marks["model"] == "mini" and marks["revision"] and marks["version_torch"] and marks["device"] == "cpu"
    assert marks["label"] == "AI-generated"


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_of_the_photograph_s_exif_is_left(name: str, daemon: RunningDaemon) -> None:
    data = _picture(daemon, name).read_bytes()
    assert not any(secret in data for secret in SECRETS)
    with Image.open(_picture(daemon, name)) as image:
        assert not dict(image.getexif()) and "exif" not in image.info


@pytest.mark.parametrize("name", OPTIONS)
def test_exiftool_reads_the_marks_and_finds_no_gps(name: str, daemon: RunningDaemon) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    command = ["exiftool", "-json", "-G1", "-a", str(_picture(daemon, name))]
    (said,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert said["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE
    assert str(said["XMP-fastfit:Seed"]) == OPTIONS[name]["seed"]
    assert said["XMP-fastfit:Model"] == "mini" and said["XMP-fastfit:Person_sha256"]
    assert not [key for key in said if "GPS" in key or key.startswith(("IFD", "ExifIFD"))]
    assert "Warning" not in str(said)


def _reproduce(daemon: RunningDaemon, picture: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastfit_watch", "reproduce", str(picture), "--config", "config.yaml", *options]
    return subprocess.run(command, cwd=daemon.home, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["anna.photo.jpg", "anna.quick.png"])
def test_reproduce_gives_the_same_bytes(name: str, daemon: RunningDaemon) -> None:
    done = _reproduce(daemon, _picture(daemon, name))
    assert done.returncode == ExitCode.OK, done.stderr
    assert "the same: every byte" in done.stdout


def test_reproduce_says_what_differs(daemon: RunningDaemon, tmp_path: Path) -> None:
    """A picture whose marks tell of another seed and another torch."""
    data = _picture(daemon, "anna.web.webp").read_bytes()
    torch = read_marks(data)["version_torch"]
    other = data.replace(b'fastfit:seed="5"', b'fastfit:seed="6"').replace(torch.encode(), b"9" * len(torch))
    (tmp_path / "other.webp").write_bytes(other)
    done = _reproduce(daemon, tmp_path / "other.webp", "--output", str(tmp_path / "again.webp"))
    assert done.returncode == ExitCode.DIFFERENT, done.stderr
    assert "of the pixels differ" in done.stdout
    assert f"torch: {'9' * len(torch)} there, {torch} here" in done.stdout
    assert (tmp_path / "again.webp").is_file()


def test_reproduce_names_the_inputs_that_are_not_at_hand(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "shirt.png").write_bytes(b"another shirt")
    done = _reproduce(daemon, _picture(daemon, "anna.plain.png"), "--from", str(tmp_path))
    assert done.returncode == ExitCode.INVALID
    assert done.stderr.count("is not at hand") == 3


def test_reproduce_wants_a_picture_of_ours(daemon: RunningDaemon, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.png")
    done = _reproduce(daemon, tmp_path / "plain.png")
    assert done.returncode == ExitCode.INVALID
    assert "does not say how it was made" in done.stderr


def test_try_on_makes_the_very_file_that_the_daemon_made(daemon: RunningDaemon, tmp_path: Path) -> None:
    sources = daemon.inputs / ".spool" / "jobs" / "job" / "snapshot"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "fastfit_watch",
        "try-on",
        "--config",
        "config.yaml",
        "--person",
        sources / "anna.jpg",
    ]
    command += ["--upper", sources / "shirt.png", "--lower", sources / "jeans.png", "--steps", "2", "--seed", "5"]
    command += ["--output", tmp_path / "same.png"]
    subprocess.run(command, cwd=daemon.home, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "same.png").read_bytes() == _picture(daemon, "anna.plain.png").read_bytes()
