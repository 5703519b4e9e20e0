"""The gallery's small pictures, and the line that makes a picture again."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image
from support.gallery_fixture import GalleryFixture

from fastfit_watch.cli.main import build_parser
from fastfit_watch.domain.look import Framing, ImageFormat, MaskMode, Preset, SamplingOptions
from fastfit_watch.domain.options import OPTIONS
from fastfit_watch.reporting.gallery import Gallery
from fastfit_watch.reporting.gallery.command import reproduce_command
from fastfit_watch.reporting.gallery.thumbs import ThumbSize, shrink


@pytest.fixture
def fixture(tmp_path: Path) -> GalleryFixture:
    return GalleryFixture(tmp_path)


def test_thumbnails_are_small_webp_without_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "at home", 6
    exif.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", (1600, 1200), "navy").save(tmp_path / "anna.jpg", exif=exif)
    data = shrink(tmp_path / "anna.jpg", ThumbSize.PICTURE)
    (tmp_path / "thumb.webp").write_bytes(data)
    with Image.open(tmp_path / "thumb.webp") as thumb:
        assert thumb.format == "WEBP" and thumb.size == (480, 640), "turned upright, as its EXIF says"
        assert not thumb.getexif() and "exif" not in thumb.info and "icc_profile" not in thumb.info
    assert b"at home" not in data and data == shrink(tmp_path / "anna.jpg", ThumbSize.PICTURE)


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 100), (100, 100)), ((4000, 300), (1280, 96)), ((900, 1200), (480, 640))]
)
def test_thumbnails_cover_their_box_and_never_grow(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "x.png")
    (tmp_path / "thumb.webp").write_bytes(shrink(tmp_path / "x.png", ThumbSize.PICTURE))
    with Image.open(tmp_path / "thumb.webp") as thumb:
        assert thumb.size == expected


@pytest.mark.parametrize("person", ["anna.jpg", "an na's $HOME `id`.jpg", "a\u202eb\n\udcff.jpg", "-x\\.jpg"])
def test_the_line_names_existing_files_and_parses(fixture: GalleryFixture, person: str) -> None:
    fixture.claim("it's\nspring", people=(person.replace("\udcff", ""),), looks=("-gala",))
    record = fixture.ledger.looks("it's\nspring")[0]
    line = reproduce_command(fixture.config, record, fixture.snapshot("it's\nspring"))
    assert line.isprintable()
    split = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    words = [word.decode() for word in split.split(b"\0")[:-1]]
    assert words[:2] == ["fastfit-watch", "try-on"]
    wanted = build_parser().parse_args(words[1:])
    assert wanted.person.is_file() and wanted.upper.is_file() and wanted.lower.is_file()
    assert (wanted.seed, wanted.steps, wanted.bundle, wanted.framing) == (7, 30, "mini", "crop")


def test_the_line_and_the_page_name_every_option(fixture: GalleryFixture) -> None:
    """Each is set to something else than its default: one that is left out would make another picture."""
    other = SamplingOptions(11, 9, 3.25, MaskMode.WORN, Framing.PASTE_BACK, ImageFormat.WEBP, Preset.DRAFT)
    defaults = asdict(SamplingOptions())
    assert set(defaults) == set(OPTIONS)
    assert all(getattr(other, name) != default for name, default in defaults.items())
    fixture.claim("spring", looks=("casual",), options=other)
    fixture.complete("spring")
    record = fixture.ledger.looks("spring")[0]
    line = reproduce_command(fixture.config, record, fixture.snapshot("spring"))
    wanted = build_parser().parse_args(shlex.split(line)[1:])
    for name in set(defaults) - {"format"}:
        assert str(getattr(wanted, name)) == str(getattr(other, name)), name
    assert wanted.output == Path("anna.casual.webp")
    Gallery(fixture.config, fixture.ledger).publish({}, "", 1e6)
    page = fixture.read("spring", "index.html")
    for name, value in asdict(other).items():
        assert re.search(rf"<dt>{name}</dt><dd[^>]*>{re.escape(str(value))}</dd>", page), name


def test_small_jobs_share_a_row_and_those_that_need_somebody_do_not(fixture: GalleryFixture) -> None:
    for name, looks in (("one", 1), ("two", 2), ("three", 3), ("bad", 1)):
        fixture.claim(name, looks=[f"look{number}" for number in range(looks)])
    fixture.claim("line")
    for name in ("one", "two", "three"):
        fixture.complete(name)
    fixture.ledger.start_attempt("bad", "anna.look0", 100.0)
    fixture.ledger.fail_look("bad", "anna.look0", "nobody was found in the picture", 101.0)
    fixture.ledger.settle_job("bad", 102.0)
    (fixture.config.outputs / "bad").mkdir()
    Gallery(fixture.config, fixture.ledger).publish({}, "", 1e6)
    found = re.findall(r'<article class="(job[^"]*)".*?<h3.*?<bdi>([^<]*)', fixture.read("index.html"), re.DOTALL)
    assert {name: breadth for breadth, name in found} == {
        "one": "job single",
        "two": "job double",
        "three": "job",
        "bad": "job",
        "line": "job brief",
    }


def test_the_reasons_of_several_looks_are_a_list(fixture: GalleryFixture) -> None:
    fixture.claim("spring", looks=[f"look {number}" for number in range(7)])
    for number in range(7):
        fixture.ledger.start_attempt("spring", f"anna.look {number}", 100.0)
        fixture.ledger.fail_look("spring", f"anna.look {number}", f"no head; no feet: bad {number // 2}", 101.0)
    fixture.ledger.settle_job("spring", 102.0)
    (fixture.config.outputs / "spring").mkdir(parents=True)
    Gallery(fixture.config, fixture.ledger).publish({}, "", 1e6)
    title = fixture.read("spring", "index.html").partition('id="title"')[2].partition("</header>")[0]
    assert '<p class="reason">7 of 7 looks failed: </p>' in title
    faults = re.findall(r"<li[^>]*>([^<]*)</li>", title)
    pairs = [f"anna.look {number}, anna.look {number + 1}" for number in (0, 2, 4)]
    assert faults == [f"{who}: no head; no feet: bad {number}" for number, who in enumerate((*pairs, "anna.look 6"))]


def test_a_job_in_work_says_once_how_far_it_is(fixture: GalleryFixture) -> None:
    fixture.claim("spring", looks=("casual", "gala"))
    fixture.finish("spring", "anna.casual")
    assert fixture.job("spring").reason == "1 of 2 pictures made"
    Gallery(fixture.config, fixture.ledger).publish({}, "", 1e6)
    assert fixture.read("spring", "index.html").count("1 of 2 pictures made") == 1


def test_each_page_of_a_large_job_says_which_pictures_it_holds(fixture: GalleryFixture) -> None:
    fixture.claim("spring", looks=[f"look{number}" for number in range(45)])
    fixture.claim("small")
    Gallery(fixture.config, fixture.ledger).publish({}, "", 1e6)
    assert fixture.read("spring", "index.html").count("Pictures 1 to 40 of 45<") == 2, "above and below"
    assert fixture.read("spring", "page-2.html").count("Pictures 41 to 45 of 45<") == 2
    assert "Pictures " not in fixture.read("small", "index.html")
