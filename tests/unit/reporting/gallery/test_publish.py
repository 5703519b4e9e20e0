"""The gallery's pages: what is written and what is not, how large it gets, and that an upload's text stays text."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image
from support.gallery_fixture import GalleryFixture

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import LookProgress, Status
from fastfit_watch.reporting.gallery import Gallery
from fastfit_watch.reporting.gallery.front_page import FRONT_EVERY_S
from fastfit_watch.reporting.gallery.templates import environment, link, show
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.atomic_write import TEMPORARY

PATIENT_S = 1e6
NASTY = "<img src=x onerror=alert(1)>&\"'`--><script>"
LIMIT_BYTES = 300_000


class _Page(HTMLParser):
    """Tags, attributes, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {key for key, _ in attrs}
        self.links += [value or "" for key, value in attrs if key in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def fixture(tmp_path: Path) -> GalleryFixture:
    return GalleryFixture(tmp_path)


def _publish(fixture: GalleryFixture, gallery: Gallery | None = None, **progress: LookProgress) -> Gallery:
    gallery = gallery or Gallery(fixture.config, fixture.ledger)
    assert gallery.publish(progress, "", PATIENT_S)
    return gallery


def _written(fixture: GalleryFixture) -> dict[str, int]:
    """Every page and thumbnail with its inode: a file that is written again has another."""
    root = fixture.config.outputs
    files = [*root.rglob("*.html"), *root.rglob("*.webp")]
    return {str(path.relative_to(root)): path.stat().st_ino for path in files}


# What the pages say


def test_the_front_page_and_a_job_s_page(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    fixture.finish("spring", "anna.casual")
    fixture.ledger.find_or_create_unclaimed("broken", 90.0)
    fixture.ledger.set_unclaimed_status(
        "broken", Status.INVALID, "outfit.yaml:3: unknown key 'uper'. Did you mean 'upper'?", 91.0
    )
    _publish(fixture, spring=LookProgress("anna.gala", "denoise", 3, 30, eta_s=40.0))
    front, page = fixture.read("index.html"), fixture.read("spring", "index.html")
    assert "anna.gala: step 3 of 30, about 40 s left" in front and "unknown key &#39;uper&#39;" in front
    assert "Mend it in inputs/broken/" in front and "Running" in front and "1 of 2 pictures" in front
    assert "30 steps · seed 7 · 10 s" in page and "denoise" in page and "9.50 s" in page
    assert 'type="range"' in page and "Make it again" in page
    assert (fixture.config.outputs / "broken" / "index.html").is_file()


def test_a_job_is_shown_once(fixture: GalleryFixture) -> None:
    for number in range(12):
        fixture.claim(f"job{number}", looks=("casual", "gala"))
        fixture.finish(f"job{number}", "anna.casual")
    for number in range(12, 15):
        fixture.claim(f"job{number}")
    _publish(fixture)
    for path in fixture.config.outputs.rglob("*.html"):
        ids = re.findall(r' id="([^"]*)"', path.read_text(encoding="utf-8"))
        assert len(ids) == len(set(ids)), path
    assert fixture.read("index.html").count("Queued</span>") == 3


def test_every_link_leads_to_a_file(fixture: GalleryFixture) -> None:
    names = ("spring", "a b&c", "ünï%20#1?", "C:x")
    for name in names:
        fixture.claim(name, people=("änna #1.jpg",), looks=("ca su%al",))
        fixture.complete(name)
    _publish(fixture)
    pages = list(fixture.config.outputs.rglob("*.html"))
    assert len(pages) == len(names) + 2
    checked = 0
    for path in pages:
        for target in _Page(path.read_text(encoding="utf-8")).links:
            if target not in ("data:,", "#main"):
                assert ":" not in target and (path.parent / unquote(target)).exists(), f"{path}: {target}"
                checked += 1
    assert checked > 40


def test_markup_in_names_stays_text(fixture: GalleryFixture) -> None:
    name = NASTY.replace("/", "")
    fixture.claim(name, people=(f"{name}.jpg",), looks=(name,), garments=(f"{name}.png",))
    fixture.complete(name)
    fixture.ledger.find_or_create_unclaimed("bad", 90.0)
    fixture.ledger.set_unclaimed_status("bad", Status.INVALID, f"{NASTY} </script></style>", 91.0)
    _publish(fixture)
    for path in fixture.config.outputs.rglob("*.html"):
        page = _Page(path.read_text(encoding="utf-8"))
        assert page.tags.count("script") == 1 and page.tags.count("style") == 1
        assert "x" not in page.links and not any(attribute.startswith("on") for attribute in page.attributes)
    assert NASTY.replace("/", "") in _Page(fixture.read(name, "index.html")).words


@pytest.mark.parametrize(
    ("text", "shown"),
    [("anna", "anna"), ("a\u202egpj.exe", "a\\u202egpj.exe"), ("a\nb\x00", "a\\x0ab\\x00"), ("é\udcff", "é\\udcff")],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    assert show(text) == shown
    template = environment().from_string('<p title="{{ text }}">{{ text }}</p>')
    assert template.render(text=text) == f'<p title="{shown}">{shown}</p>'


def test_joiners_of_other_scripts_stay(fixture: GalleryFixture) -> None:
    assert show("\u0645\u200c\u062f") == "\u0645\u200c\u062f"
    assert link("a/b", "..", "c:d") == "a%2Fb/../c%3Ad"


def test_pages_load_nothing_from_elsewhere(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    fixture.complete("spring")
    _publish(fixture)
    for path in fixture.config.outputs.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert "http://" not in page and "https://" not in page and "url(" not in page
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
        assert policy is not None and policy[1].startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy[1]


def test_failures_say_why_and_what_to_do(fixture: GalleryFixture) -> None:
    fixture.claim("it's", looks=("casual",))
    fixture.ledger.start_attempt("it's", "anna.casual", 100.0)
    fixture.ledger.fail_look("it's", "anna.casual", "nobody was found in the picture", 101.0)
    fixture.ledger.settle_job("it's", 102.0)
    (fixture.config.outputs / "it's").mkdir(parents=True)
    _publish(fixture)
    words = "".join(_Page(fixture.read("index.html")).words)
    assert "nobody was found in the picture" in words and "RETRY in inputs/it's/" in words
    assert f"fastfit-watch retry {shlex.quote(chr(39).join(('it', 's')))}" in words


def test_withheld_pictures_ask_for_somebody(fixture: GalleryFixture) -> None:
    fixture.claim("it's")
    fixture.finish("it's", "anna.casual")
    fixture.ledger.start_attempt("it's", "anna.gala", 100.0)
    fixture.ledger.review.withhold_look("it's", "anna.gala", "nsfw 0.98", 101.0)
    fixture.ledger.settle_job("it's", 102.0)
    fixture.claim("plain")
    fixture.complete("plain")
    _publish(fixture)
    told = "1 picture withheld by the content filter. To see why, and to release or discard: fastfit-watch release "
    front, page = ("".join(_Page(fixture.read(*parts)).words) for parts in (("index.html",), ("it's", "index.html")))
    assert front.count("withheld by") == 1 and told + shlex.quote("it's") in front
    assert told + shlex.quote("it's") in page and "nsfw 0.98" in page and "Withheld" in page
    assert "withheld by" not in fixture.read("plain", "index.html")


def test_a_halt_is_said_first(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    Gallery(fixture.config, fixture.ledger).publish({}, "only 3 MB are free", PATIENT_S)
    assert "Nothing is made just now: only 3 MB are free" in fixture.read("index.html")


# What is written, and when


def test_the_picture_that_an_engine_is_writing_is_left_alone(fixture: GalleryFixture) -> None:
    """It was taken for a leftover, and the engine's process ended over it. The engine is another process, as here."""
    fixture.claim("spring")
    folder = fixture.config.outputs / "spring"
    folder.mkdir(parents=True)
    being_written, left_over = folder / f"{TEMPORARY}{os.getppid()}-0d2a5d3f", folder / f"{TEMPORARY}4194305-0d2a5d3f"
    for path in (being_written, left_over):
        path.write_bytes(b"half")
    _publish(fixture)
    assert being_written.exists() and not left_over.exists()


def test_one_new_picture_writes_four_files(fixture: GalleryFixture) -> None:
    fixture.claim("old")
    fixture.complete("old")
    _publish(fixture)
    fixture.multiply("old", 60, with_folders=True)
    fixture.claim("live")
    fixture.finish("live", "anna.casual")
    gallery = _publish(fixture)
    before = _written(fixture)
    fixture.finish("live", "anna.gala", 1_700_000_200.0)
    _publish(fixture, gallery)
    after = _written(fixture)
    changed = {name for name, inode in after.items() if before.get(name) != inode}
    assert {name for name in changed if name.endswith(".html")} == {
        "index.html",
        "live/index.html",
        "gallery/page-3.html",
    }
    assert len(changed) == 4, "and the thumbnail of the new picture"


def test_nothing_new_writes_nothing(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    gallery = _publish(fixture)
    before = _written(fixture)
    _publish(fixture, gallery)
    assert _written(fixture) == before


def test_the_front_page_is_renewed_while_nothing_happens(
    fixture: GalleryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its age tells a running daemon from one that is gone."""
    fixture.claim("spring")
    gallery = _publish(fixture)
    monkeypatch.setattr("fastfit_watch.reporting.gallery.publish.FRONT_EVERY_S", 0.0)
    before = _written(fixture)
    _publish(fixture, gallery)
    after = _written(fixture)
    assert {name for name in after if before[name] != after[name]} == {"index.html"}
    renewed = re.search(r'data-renewed="([0-9.]+)"', fixture.read("index.html"))
    assert renewed is not None and float(renewed[1]) >= 2 * FRONT_EVERY_S


def test_a_restart_writes_only_what_is_stale_or_missing(fixture: GalleryFixture) -> None:
    for name in ("one", "two", "three"):
        fixture.claim(name)
        fixture.complete(name)
    _publish(fixture)
    before = _written(fixture)
    (fixture.config.outputs / "two" / "index.html").unlink()
    page = fixture.config.outputs / "three" / "index.html"
    page.write_text(
        page.read_text(encoding="utf-8").replace('stamp" content="', 'stamp" content="older'), encoding="utf-8"
    )
    _publish(fixture)
    after = _written(fixture)
    assert after["one/index.html"] == before["one/index.html"]
    assert "two/index.html" in after and "older" not in page.read_text(encoding="utf-8")[:300]
    assert after["gallery/page-1.html"] == before["gallery/page-1.html"]


def test_a_front_page_that_was_removed_comes_back(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    gallery = _publish(fixture)
    (fixture.config.outputs / "index.html").unlink()
    _publish(fixture, gallery)
    assert (fixture.config.outputs / "index.html").is_file()


def test_results_that_were_taken_away_do_not_come_back(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    fixture.complete("spring")
    _publish(fixture)
    shutil.rmtree(fixture.config.outputs / "spring")
    _publish(fixture)
    assert not (fixture.config.outputs / "spring").exists()
    assert "was removed" in fixture.read("index.html")


def test_time_runs_out_and_the_rest_follows(fixture: GalleryFixture) -> None:
    fixture.claim("old")
    fixture.complete("old")
    _publish(fixture)
    fixture.multiply("old", 30, with_folders=True)
    gallery, rounds = Gallery(fixture.config, fixture.ledger), 0
    while not gallery.publish({}, "", 0.02):
        assert (fixture.config.outputs / "index.html").is_file(), "the front page does not wait for the rest"
        rounds += 1
    assert rounds > 0 and len(list(fixture.config.outputs.rglob("*.html"))) == 31 + 2 + 1


def test_one_unwritable_job_does_not_stop_the_others(fixture: GalleryFixture) -> None:
    for name in ("bad", "good"):
        fixture.claim(name)
        fixture.complete(name)
    (fixture.config.outputs / "bad" / "thumbs").write_text("in the way")
    gallery = Gallery(fixture.config, fixture.ledger)
    with pytest.raises(Exception, match="the pages of 'bad'"):
        gallery.publish({}, "", PATIENT_S)
    assert (fixture.config.outputs / "good" / "index.html").is_file() and "good" in fixture.read("index.html")


def test_progress_is_told_without_a_change_in_the_ledger(
    fixture: GalleryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture.claim("spring")
    fixture.finish("spring", "anna.casual")
    gallery = _publish(fixture, spring=LookProgress("anna.gala", "denoise", 3, 30))
    monkeypatch.setattr("fastfit_watch.reporting.gallery.publish._PROGRESS_EVERY_S", 0.0)
    _publish(fixture, gallery, spring=LookProgress("anna.gala", "denoise", 9, 30))
    assert "step 9 of 30" in fixture.read("index.html") and "step 9 of 30" in fixture.read("spring", "index.html")


def test_a_report_that_comes_later_is_linked(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    fixture.complete("spring")
    gallery = _publish(fixture)
    assert "sheet.jpg" not in fixture.read("spring", "index.html")
    (fixture.config.outputs / "spring" / "sheet.jpg").write_bytes(b"sheet")
    gallery.note_report("spring")
    _publish(fixture, gallery)
    assert "sheet.jpg" in fixture.read("spring", "index.html")


def test_a_full_disk_comes_out_as_one(fixture: GalleryFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture.claim("spring")

    def full(path: Path, text: str) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("fastfit_watch.reporting.gallery.publish.write_text", full)
    with pytest.raises(StorageError):
        Gallery(fixture.config, fixture.ledger).publish({}, "", PATIENT_S)


# How large, how fast


def test_a_large_job_has_several_pages_and_one_is_written_for_one_picture(fixture: GalleryFixture) -> None:
    fixture.claim(
        "crowd", people=[f"p{number}.jpg" for number in range(10)], looks=[f"l{number}" for number in range(10)]
    )
    gallery = _publish(fixture)
    pages = sorted(path.name for path in (fixture.config.outputs / "crowd").glob("*.html"))
    assert pages == ["index.html", "page-2.html", "page-3.html"]
    before = _written(fixture)
    fixture.finish("crowd", "p9.l9")
    _publish(fixture, gallery)
    after = _written(fixture)
    assert after["crowd/page-2.html"] == before["crowd/page-2.html"]
    assert after["crowd/page-3.html"] != before["crowd/page-3.html"]


@pytest.mark.parametrize("letter", ["a", "'", "漢"], ids=["plain", "quotes", "wide"])
def test_no_page_is_larger_than_300_kb(fixture: GalleryFixture, letter: str) -> None:
    Image.new("RGB", (48, 64)).save(fixture.result)  # small pictures: only the pages are measured
    long = letter * (190 // len(letter.encode()))
    people = [f"{long}{number}.jpg" for number in range(10)]
    looks = [f"{number}{letter * 10}" for number in range(4)]
    fixture.claim(f"{long}0", people, looks)
    fixture.complete(f"{long}0")
    for number in range(1, 24):
        fixture.claim(f"{long}{number}", people[:2], looks)
        if number < 12:
            fixture.complete(f"{long}{number}")
    for number in range(20):
        fixture.ledger.find_or_create_unclaimed(f"{number}{long}", 90.0)
        fixture.ledger.set_unclaimed_status(f"{number}{long}", Status.INVALID, f"{number} {letter * 4000}", 91.0)
    _publish(fixture)
    sizes = {str(path)[-30:]: path.stat().st_size for path in fixture.config.outputs.rglob("*.html")}
    assert max(sizes.values()) < LIMIT_BYTES, max(sizes.items(), key=lambda item: item[1])
    assert fixture.read(f"{long}0", "index.html").count('class="figure"') == 40


def _update_s(fixture: GalleryFixture, gallery: Gallery, keys: list[str]) -> float:
    """CPU time of the update after one more picture of the job `live`: the median of these."""
    spent_s = []
    for key in keys:
        fixture.finish("live", key)
        before_s = time.thread_time()
        _publish(fixture, gallery)
        spent_s.append(time.thread_time() - before_s)
    return sorted(spent_s)[len(spent_s) // 2]


@pytest.mark.alone
def test_one_picture_among_5000_jobs_costs_little_more_than_among_40(fixture: GalleryFixture) -> None:
    """CPU time of the whole update: the thumbnail, the pages of the job and the archive, the front page."""
    looks = ("casual", "gala", "city", "night")
    people = ("a.jpg", "b.jpg", "c.jpg")
    fixture.claim("old", people, looks)
    fixture.complete("old")
    _publish(fixture)
    fixture.multiply("old", 40, with_folders=True)
    fixture.claim("live", people, looks)
    keys = [record.look.key for record in fixture.ledger.looks("live")]
    among_40_s = _update_s(fixture, _publish(fixture), keys[:6])
    fixture.multiply("old.1", 4958, with_folders=False)
    gallery = _publish(fixture)
    assert sum(fixture.ledger.counts().values()) == 5000
    assert _update_s(fixture, gallery, keys[6:]) < 6 * among_40_s
    front = (fixture.config.outputs / "index.html").stat().st_size
    assert front < LIMIT_BYTES


def test_without_the_uploads_there_is_no_line(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    fixture.complete("spring")
    shutil.rmtree(fixture.snapshot("spring"))
    _publish(fixture)
    page = fixture.read("spring", "index.html")
    assert "no longer in the spool" in page and "try-on" not in page.split("<script>")[0]


def test_another_process_s_change_is_seen(fixture: GalleryFixture) -> None:
    fixture.claim("spring")
    gallery = _publish(fixture)
    other = Ledger(fixture.ledger.path)
    other.requests.cancel("spring", 300.0)
    other.close()
    (fixture.config.outputs / "spring").mkdir(exist_ok=True)
    _publish(fixture, gallery)
    assert "cancelled by request" in fixture.read("spring", "index.html")
