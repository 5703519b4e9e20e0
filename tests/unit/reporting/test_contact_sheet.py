"""The contact sheet: its layout at any count, names the font cannot write, and equal bytes for equal jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.gallery_fixture import GalleryFixture

from fastfit_watch.reporting.contact_sheet import write_sheets

CELL = (360, 480)
LEFT, TOP = 96 + CELL[0] + 36, 96 + 150 + 236  # of the first result


@pytest.fixture
def fixture(tmp_path: Path) -> GalleryFixture:
    return GalleryFixture(tmp_path)


def _sheets(fixture: GalleryFixture, job_id: str) -> list[Path]:
    folder = fixture.config.outputs / job_id
    folder.mkdir(parents=True, exist_ok=True)
    return write_sheets(folder, fixture.snapshot(job_id), fixture.job(job_id), fixture.ledger.looks(job_id))


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB"), np.int16)


def _names(fixture: GalleryFixture, count: int, kind: str) -> list[str]:
    return [f"{kind}{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("people", "looks", "expected"),
    [(1, 1, [(1, 1)]), (4, 6, [(4, 6)]), (9, 2, [(3, 2), (3, 2), (3, 2)]), (5, 7, [(2, 3), (2, 4), (3, 3), (3, 4)])],
)
def test_pages_are_split_evenly(
    fixture: GalleryFixture, people: int, looks: int, expected: list[tuple[int, int]]
) -> None:
    fixture.claim("spring", [f"{name}.jpg" for name in _names(fixture, people, "p")], _names(fixture, looks, "l"))
    shown = []
    for path in _sheets(fixture, "spring"):
        with Image.open(path) as page:
            width, height = page.size
        shown.append(((height - 96 - 150 - 236 - 112) // (480 + 84), (width - 2 * 96 - 360) // 396))
    assert shown == expected


def test_every_picture_is_in_its_place(fixture: GalleryFixture) -> None:
    fixture.claim("spring", ("anna.jpg", "ben.jpg"), ("casual", "gala"))
    for key in ("anna.casual", "ben.gala"):
        fixture.finish("spring", key)
    fixture.ledger.start_attempt("spring", "anna.gala", 200.0)
    fixture.ledger.fail_look("spring", "anna.gala", "nobody was found in the picture", 201.0)
    page = _pixels(_sheets(fixture, "spring")[0])
    green, steel, rosy, empty = (46, 139, 87), (70, 130, 180), (188, 143, 143), (241, 238, 233)

    def at(column: int, row: int) -> tuple[int, ...]:
        """The colour in the middle of a cell; column 0 is the person."""
        x = 96 + column * (CELL[0] + 36) + CELL[0] // 2
        y = TOP + row * (CELL[1] + 84) + CELL[1] // 2 + 40
        return tuple(page[y, x])

    wanted = {(0, 0): rosy, (1, 0): green, (2, 0): empty, (0, 1): rosy, (1, 1): empty, (2, 1): green}
    for place, colour in wanted.items():
        assert max(abs(a - b) for a, b in zip(at(*place), colour, strict=True)) < 12, place
    head = page[96 + 150 + 52 + 56, LEFT + 42]
    assert max(abs(int(a) - b) for a, b in zip(head, steel, strict=True)) < 12, "the garments stand in the head row"


def test_equal_jobs_give_equal_bytes(fixture: GalleryFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture.claim("spring")
    fixture.complete("spring")
    first = _sheets(fixture, "spring")[0].read_bytes()
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert _sheets(fixture, "spring")[0].read_bytes() == first
    assert b"http://cv.iptc.org" in first and b"Exif" not in first


def test_names_beyond_the_font_are_numbered_and_never_boxes(fixture: GalleryFixture, tmp_path: Path) -> None:
    """Drawn as ASCII names with the same numbers, the sheet must be the same, but for its footnote."""
    foot = 112 + 16
    pages = []
    for job_id, people, looks in (
        ("a", ("анна.jpg", "漢字.jpg"), ("春", "😀")),
        ("a-", ("person 1.jpg", "person 2.jpg"), ("look 1", "look 2")),
    ):
        fixture.claim(job_id, people, looks)
        pages.append(_pixels(_sheets(fixture, job_id)[0])[200:-foot])
    assert np.array_equal(pages[0], pages[1])


def test_accents_are_dropped_where_the_font_lacks_them(fixture: GalleryFixture) -> None:
    pages = []
    for job_id, people in (("a", ("Zoë.jpg",)), ("a-", ("Zoe.jpg",))):
        fixture.claim(job_id, people, ("été",) if job_id == "a" else ("ete",))
        pages.append(_pixels(_sheets(fixture, job_id)[0])[200:])
    assert np.array_equal(pages[0], pages[1])


def test_long_names_stay_in_their_cell(fixture: GalleryFixture) -> None:
    fixture.claim("spring", ("W" * 90 + ".jpg",), ("W" * 90, "x"))
    page = _pixels(_sheets(fixture, "spring")[0])
    gap = page[96 + 150 : TOP - 40, LEFT + CELL[0] + 1 : LEFT + CELL[0] + 35]
    assert gap.min() > 245


def test_pages_of_a_longer_sheet_are_removed(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    folder = fixture.config.outputs / "spring"
    folder.mkdir(parents=True)
    for number in (2, 3):
        (folder / f"sheet-{number}.jpg").write_bytes(b"old")
    assert [path.name for path in _sheets(fixture, "spring")] == ["sheet.jpg"]
    assert not list(folder.glob("sheet-*.jpg"))
