"""The gallery in a real browser: filters, sliders, copying, and refreshing without disturbing the reader."""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect
from support.chromium import Visit, launch, serve, visit
from support.gallery_fixture import GalleryFixture

from fastfit_watch.domain.job import LookProgress, Status
from fastfit_watch.reporting.gallery import Gallery
from fastfit_watch.reporting.report import build_report

NASTY = "<img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch() as browser:
        yield browser


@pytest.fixture
def fixture(tmp_path: Path) -> GalleryFixture:
    """One job in work, one done, one that failed, one with a nasty name, one that cannot be used."""
    fixture = GalleryFixture(tmp_path)
    fixture.claim("winter", people=("ben.jpg",), looks=("casual", "storm"))
    fixture.complete("winter")
    fixture.claim(NASTY, people=(f"{NASTY}.jpg",), looks=(NASTY,))
    fixture.complete(NASTY)
    fixture.claim("autumn", looks=("casual",))
    fixture.ledger.start_attempt("autumn", "anna.casual", 1_700_000_200.0)
    fixture.ledger.fail_look("autumn", "anna.casual", "nobody was found in the picture", 1_700_000_201.0)
    fixture.ledger.settle_job("autumn", 1_700_000_202.0)
    (fixture.config.outputs / "autumn").mkdir()
    fixture.ledger.find_or_create_unclaimed("broken", 90.0)
    fixture.ledger.set_unclaimed_status(
        "broken", Status.INVALID, "outfit.yaml:1: no 'people'. Add them.; outfit.yaml:4: 'uper'.", 91.0
    )
    fixture.claim("spring", people=("anna.jpg", "ben.jpg", "chloe.jpg"), looks=("casual", "gala"))
    for key in ("anna.casual", "anna.gala"):
        fixture.finish("spring", key)
    return fixture


@pytest.fixture
def gallery(fixture: GalleryFixture) -> Gallery:
    gallery = Gallery(fixture.config, fixture.ledger)
    gallery.publish({"spring": LookProgress("ben.casual", "denoise", 4, 30, eta_s=40.0)}, "", 1e6)
    return gallery


def _more(fixture: GalleryFixture, gallery: Gallery, key: str, at_s: float) -> None:
    fixture.finish("spring", key, at_s)
    gallery.publish({}, "", 1e6)


def _address(fixture: GalleryFixture, served: str, way: str) -> str:
    return served if way == "http" else fixture.config.outputs.as_uri()


def _shown_jobs(page: Page) -> set[str]:
    return {name.strip() for name in page.locator(".job:visible h3").all_inner_texts()}


def _clean(seen: Visit, address: str) -> None:
    assert seen.complaints == []
    assert all(url.startswith((address, "data:,")) for url in seen.requests), seen.requests
    assert any(url.endswith(".webp") for url in seen.requests), "pictures were loaded"


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize("way", ["http", "file"])
def test_all_pages_load_cleanly(fixture: GalleryFixture, browser: Browser, way: str) -> None:
    with serve(fixture.config.outputs) as served:
        address = _address(fixture, served, way)
        for path in ("index.html", "spring/index.html", "gallery/page-1.html"):
            with visit(browser, f"{address}/{path}") as seen:
                seen.page.wait_for_load_state("networkidle")
                widths = seen.page.eval_on_selector_all(
                    "main img",
                    "all => all.filter(img => img.loading !== 'lazy' || img.complete).map(img => img.naturalWidth)",
                )
                assert widths and min(widths) > 0
                _clean(seen, address)


@pytest.mark.usefixtures("gallery")
def test_markup_in_names_is_text(fixture: GalleryFixture, browser: Browser) -> None:
    with visit(browser, f"{fixture.config.outputs.as_uri()}/index.html") as seen:
        job = seen.page.locator(".job").filter(has_text=NASTY)
        expect(job.locator("h3")).to_have_text(NASTY)
        job.locator("h3 a").click()
        expect(seen.page.locator("h1")).to_have_text(NASTY)
        expect(seen.page.locator(".figure .look")).to_have_text(NASTY)
        expect(seen.page.locator(".compare .after img")).to_have_js_property("complete", True)
        assert seen.complaints == []


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("path", ["index.html", "spring/index.html", "autumn/index.html", "gallery/page-1.html"])
def test_axe_finds_nothing_serious(
    fixture: GalleryFixture, browser: Browser, path: str, width: int, scheme: str
) -> None:
    window: dict[str, Any] = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme}
    with visit(browser, f"{fixture.config.outputs.as_uri()}/{path}", **window) as seen:
        for details in seen.page.locator("details").all():
            details.evaluate("part => { part.open = true; }")
        assert seen.audit() == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out sideways"


@pytest.mark.usefixtures("gallery")
def test_colours_follow_the_reader(fixture: GalleryFixture, browser: Browser) -> None:
    papers = []
    for scheme in ("light", "dark"):
        with visit(browser, f"{fixture.config.outputs.as_uri()}/index.html", color_scheme=scheme) as seen:
            papers.append(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(250, 249, 247)", "rgb(23, 22, 21)"]


@pytest.mark.usefixtures("gallery")
def test_filters_by_state_and_look(fixture: GalleryFixture, browser: Browser) -> None:
    with visit(browser, f"{fixture.config.outputs.as_uri()}/index.html") as seen:
        page = seen.page
        assert _shown_jobs(page) == {"winter", NASTY, "spring"}
        expect(page.locator("#troubled summary")).to_contain_text("2 need you")
        page.locator("#troubled summary").click()
        assert _shown_jobs(page) == {"winter", NASTY, "autumn", "broken", "spring"}
        page.locator("label[for=state-failed]").click()
        assert _shown_jobs(page) == {"autumn"}
        expect(page.locator("#newest")).to_be_hidden()
        page.locator("label[for=state-all]").click()
        page.get_by_label("Look").select_option("gala")
        assert _shown_jobs(page) == {"spring"}
        assert page.locator(".tile:visible").count() == 1
        page.locator("label[for=state-done]").click()
        expect(page.locator("#nothing")).to_be_visible()
        page.reload()
        assert _shown_jobs(page) == set(), "a reload keeps the filter"
        page.locator("#archive summary").click()
        page.locator("#archive a").click()
        assert "state=done" in page.url and page.locator("#state-done").is_checked(), "so does the way to older jobs"


@pytest.mark.parametrize("bad", [1, 5, 200])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["wide", "phone"])
def test_results_are_on_the_first_screen_however_many_uploads_are_bad(
    fixture: GalleryFixture, browser: Browser, size: tuple[int, int], bad: int
) -> None:
    for number in range(bad):
        fixture.ledger.find_or_create_unclaimed(f"bad{number}", 90.0)
        fixture.ledger.set_unclaimed_status(f"bad{number}", Status.INVALID, f"outfit.yaml:1: wrong {number}.", 91.0)
    Gallery(fixture.config, fixture.ledger).publish({}, "", 1e6)
    window = {"width": size[0], "height": size[1]}
    with visit(browser, f"{fixture.config.outputs.as_uri()}/index.html", viewport=window) as seen:
        box = seen.page.locator(".tile img").first.bounding_box()
        assert box is not None and box["y"] + box["height"] / 2 < size[1], "half of a picture at least"
        expect(seen.page.locator("#troubled summary")).to_contain_text(f"{bad + 2} need you")
        seen.page.locator("label[for=state-invalid]").click()
        shown = seen.page.locator("#troubled .job:visible").count()
        assert shown == min(bad + 1, 9), "choosing them opens them; one of the ten newest is 'failed'"


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize("path", ["index.html", "spring/index.html"])
def test_the_larger_view_is_walked_with_arrow_keys(fixture: GalleryFixture, browser: Browser, path: str) -> None:
    with visit(browser, f"{fixture.config.outputs.as_uri()}/{path}") as seen:
        page = seen.page
        links = page.locator("a[data-larger]:visible")
        files = [link.evaluate("link => link.href") for link in links.all()]
        assert len(files) >= 2
        picture, name = page.locator("#larger-picture"), page.locator("#larger-name")
        links.first.click()
        expect(page.locator("#larger")).to_be_visible()
        expect(picture).to_have_js_property("src", files[0])
        page.wait_for_function("document.getElementById('larger-picture').naturalWidth === 768")
        expect(page.locator("#larger-previous")).to_be_disabled()
        page.keyboard.press("ArrowRight")
        expect(picture).to_have_js_property("src", files[1])
        expect(name).to_contain_text(f"2 of {len(files)}")
        page.keyboard.press("End")
        page.keyboard.press("ArrowRight")
        expect(picture).to_have_js_property("src", files[-1])
        page.keyboard.press("ArrowLeft")
        expect(picture).to_have_js_property("src", files[-2])
        assert seen.audit() == []
        page.keyboard.press("Escape")
        expect(page.locator("#larger")).to_be_hidden()
        expect(links.nth(len(files) - 2)).to_be_focused()
        assert seen.complaints == []


@pytest.mark.usefixtures("gallery")
def test_the_picture_before_is_loaded_before_it_is_shown(fixture: GalleryFixture, browser: Browser) -> None:
    """It is wholly clipped at first, so that a browser left it out until the slider moved."""
    with visit(browser, f"{fixture.config.outputs.as_uri()}/spring/index.html") as seen:
        seen.page.wait_for_function("document.querySelector('#look-0 .before img').naturalWidth > 0")
        assert seen.page.locator("#look-0-before").input_value() == "0"


def test_all_pictures_of_a_job_come_as_one_zip(fixture: GalleryFixture, browser: Browser, tmp_path: Path) -> None:
    folder = fixture.config.outputs / NASTY
    job = fixture.job(NASTY)
    (folder / "report.json").write_text(json.dumps(build_report(job, fixture.ledger.looks(NASTY), [])))
    Gallery(fixture.config, fixture.ledger).publish({}, "", 1e6)
    with (
        serve(fixture.config.outputs) as served,
        visit(browser, f"{served}/{quote(NASTY, safe='')}/index.html") as seen,
    ):
        with seen.page.expect_download() as download:
            seen.page.locator("#zip").click()
        download.value.save_as(tmp_path / "all.zip")
        assert seen.complaints == []
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        (record,) = fixture.ledger.looks(NASTY)
        assert record.result is not None and archive.namelist() == [record.result.file]
        assert archive.read(record.result.file) == (folder / record.result.file).read_bytes()
        age_s = time.time() - time.mktime((*archive.infolist()[0].date_time, 0, 0, -1))
        assert -5 < age_s < 600


@pytest.mark.usefixtures("gallery")
def test_the_size_of_the_pictures_is_kept(fixture: GalleryFixture, browser: Browser) -> None:
    def across(page: Page) -> int:
        return len(page.evaluate("getComputedStyle(document.querySelector('.figures')).gridTemplateColumns").split())

    with visit(browser, f"{fixture.config.outputs.as_uri()}/spring/index.html") as seen:
        page, counts = seen.page, []
        for size in ("small", "medium", "large"):
            page.locator(f"label[for=density-{size}]").click()
            counts.append(across(page))
        assert counts[0] > counts[1] > counts[2]
        page.reload()
        assert across(page) == counts[2] and page.locator("#density-large").is_checked()


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize(
    ("path", "hours", "words"),
    [
        ("index.html", 0, None),
        ("index.html", 3, "written 3 hours ago. While fastfit-watch runs, it renews this page"),
        ("spring/index.html", 30, "written 30 hours ago. The front page says how things are now."),
        ("winter/index.html", 30, None),
    ],
)
def test_an_old_page_says_how_old_it_is(
    fixture: GalleryFixture, browser: Browser, path: str, hours: int, words: str | None
) -> None:
    page = fixture.config.outputs / path
    written = datetime.now(UTC) - timedelta(hours=hours)
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r'(id="written">written <time datetime=")[^"]*', rf"\g<1>{written.isoformat()}", text))
    with visit(browser, page.as_uri()) as seen:
        expect(seen.page.locator("#live")).to_be_visible()
        if words is None:
            expect(seen.page.locator("#stale")).to_be_hidden()
        else:
            expect(seen.page.locator("#stale")).to_contain_text(words)


@pytest.mark.usefixtures("gallery")
def test_keys_move_slider_and_filters(fixture: GalleryFixture, browser: Browser) -> None:
    with visit(browser, f"{fixture.config.outputs.as_uri()}/spring/index.html") as seen:
        page = seen.page
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        slider = page.locator("#look-0-before")
        slider.focus()
        before = page.locator("#look-0 .before")
        assert "100%" in before.evaluate("part => getComputedStyle(part).clipPath")
        page.keyboard.press("End")
        assert before.evaluate("part => getComputedStyle(part).clipPath") == "inset(0px 0% 0px 0px)"
        page.locator("#state-all").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator(".figure:visible").count() == 4, "the next state: in line"


@pytest.mark.usefixtures("gallery")
def test_the_slider_follows_the_pointer(fixture: GalleryFixture, browser: Browser) -> None:
    with visit(browser, f"{fixture.config.outputs.as_uri()}/spring/index.html") as seen:
        box = seen.page.locator("#look-0 .compare").bounding_box()
        assert box is not None
        seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert abs(int(seen.page.locator("#look-0-before").input_value()) - 50) <= 4


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize("has_clipboard", [True, False])
def test_the_command_is_copied(fixture: GalleryFixture, browser: Browser, has_clipboard: bool) -> None:
    with (
        serve(fixture.config.outputs) as served,
        visit(browser, f"{served}/spring/index.html", permissions=["clipboard-read", "clipboard-write"]) as seen,
    ):
        page = seen.page
        if not has_clipboard:  # as on a page that came over plain http
            page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('no')))")
        page.locator("#look-0 summary").click()
        page.locator("#look-0 [data-copy]").click()
        expect(page.locator("#look-0 [data-copy]")).to_have_text("Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator("#look-0 code").inner_text() and copied.startswith("fastfit-watch try-on ")


@pytest.mark.parametrize("way", ["http", "file"])
def test_a_refresh_keeps_what_the_reader_did(
    fixture: GalleryFixture, gallery: Gallery, browser: Browser, way: str
) -> None:
    with (
        serve(fixture.config.outputs) as served,
        visit(browser, f"{_address(fixture, served, way)}/spring/index.html", refreshing=True) as seen,
    ):
        page = seen.page
        page.get_by_label("Look").select_option("gala")
        page.locator("#look-1 summary").click()
        page.locator("#look-1-before").fill("40")
        page.set_viewport_size({"width": 700, "height": 400})
        page.evaluate("scrollTo(0, 333)")
        page.locator("#look-1 [data-copy]").focus()
        page.evaluate("scrollTo(0, 333)")
        button = page.locator("#look-1 [data-copy]")
        place = button.evaluate("part => part.getBoundingClientRect().top")
        _more(fixture, gallery, "ben.gala", 1_700_000_300.0)
        expect(page.locator("#title")).to_contain_text("3 of 6")
        expect(page.locator("#look-3 .compare")).to_be_visible()
        assert page.get_by_label("Look").input_value() == "gala"
        assert page.locator("#look-0").is_hidden() and page.locator("#look-1-more").get_attribute("open") is not None
        assert page.locator("#look-1-before").input_value() == "40"
        assert "60%" in page.locator("#look-1 .before").evaluate("part => getComputedStyle(part).clipPath")
        assert abs(button.evaluate("part => part.getBoundingClientRect().top") - place) <= 1
        assert seen.complaints == []


def test_a_refresh_leaves_alone_what_did_not_change(
    fixture: GalleryFixture, gallery: Gallery, browser: Browser
) -> None:
    with serve(fixture.config.outputs) as served, visit(browser, f"{served}/index.html", refreshing=True) as seen:
        page = seen.page
        page.evaluate("document.querySelector('#newest .job').mine = true")
        page.locator("#newest h3 a").first.focus()
        mark = page.locator("#newest .job").first
        mark.evaluate("part => scrollBy(0, part.getBoundingClientRect().top - 5)")
        before = mark.evaluate("part => part.getBoundingClientRect().top")
        _more(fixture, gallery, "ben.casual", 1_700_000_300.0)
        fixture.claim("summer", now_s=1_700_000_400.0)
        gallery.publish({}, "", 1e6)
        expect(page.locator(".job").filter(has_text="summer")).to_have_count(1)
        assert mark.evaluate("part => part.mine") is True
        assert abs(mark.evaluate("part => part.getBoundingClientRect().top") - before) <= 1, (
            "new parts above move nothing"
        )
        expect(page.locator("#newest h3 a").first).to_be_focused()
        assert seen.complaints == []


def test_the_reader_can_stop_the_refreshing(fixture: GalleryFixture, gallery: Gallery, browser: Browser) -> None:
    with (
        serve(fixture.config.outputs) as served,
        visit(browser, f"{served}/spring/index.html", refreshing=True) as seen,
    ):
        seen.page.locator("#live").click()
        expect(seen.page.locator("#live")).to_have_attribute("aria-pressed", "false")
        _more(fixture, gallery, "ben.gala", 1_700_000_300.0)
        fetched = len(seen.requests)
        seen.page.wait_for_timeout(7000)
        assert len(seen.requests) == fetched
        seen.page.locator("#live").click()
        expect(seen.page.locator("#title")).to_contain_text("3 of 6")


@pytest.mark.usefixtures("gallery")
def test_without_scripts_everything_is_still_there(fixture: GalleryFixture, browser: Browser) -> None:
    with visit(browser, f"{fixture.config.outputs.as_uri()}/spring/index.html", java_script_enabled=False) as seen:
        assert seen.page.locator(".figure").count() == 6
        expect(seen.page.locator("#filters")).to_be_hidden()
        expect(seen.page.locator("#look-0 .compare input")).to_be_hidden()
        seen.page.locator("#look-0 summary").click()
        expect(seen.page.locator("#look-0 code")).to_be_visible()
