"""The gallery of a real run in a real browser: made by the daemon with the mini bundle, read meanwhile and after."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect
from support.chromium import launch, serve, visit
from support.running_daemon import RunningDaemon, draw_upload

NASTY = "<i>winter&'\"{}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch() as browser:
        yield browser


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[RunningDaemon]:
    """One job made while a reader looks on, one with markup in its name, and one that cannot be used."""
    daemon = RunningDaemon(tmp_path_factory.mktemp("gallery"))
    draw_upload(daemon.inputs / "spring", people=2, looks=2)
    bad = draw_upload(daemon.inputs / "broken")
    (bad / "outfit.yaml").write_text("person: p0.jpg\nuper: top0.png\n", encoding="utf-8")
    daemon.start()
    try:
        _watch(daemon, browser)
        draw_upload(daemon.inputs / NASTY)
        daemon.wait_done("spring")
        daemon.wait_done(NASTY)
        assert daemon.stop() == 0
        yield daemon
    finally:
        daemon.kill()


def _watch(daemon: RunningDaemon, browser: Browser) -> None:
    """Keep the job's page open while its pictures come."""
    daemon.wait((daemon.outputs / "spring" / "index.html").is_file, "the first page of the job")
    with serve(daemon.outputs) as served, visit(browser, f"{served}/spring/index.html", refreshing=True) as seen:
        title = seen.page.locator("#title")
        expect(title).to_contain_text("4 of 4 pictures made")
        expect(title).to_contain_text("Contact sheet")
        assert seen.complaints == [], "it renewed itself while the pictures came, and complained of nothing"
        assert all(url.startswith((served, "data:,")) for url in seen.requests)


@pytest.fixture(scope="module")
def laptop(daemon: RunningDaemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results alone, copied elsewhere as `scp -r` would."""
    return Path(shutil.copytree(daemon.outputs, tmp_path_factory.mktemp("laptop") / "outputs"))


def test_a_copy_on_a_laptop_is_whole(laptop: Path, browser: Browser) -> None:
    with visit(browser, (laptop / "index.html").as_uri()) as seen:
        page = seen.page
        assert page.locator(".job").count() == 3
        assert page.locator(".job h3").all_inner_texts().count(NASTY) == 1
        expect(page.locator("#troubled")).to_contain_text("uper")
        page.locator("label[for=state-invalid]").click()
        assert page.locator(".job:visible").count() == 1
        page.locator("label[for=state-all]").click()
        page.locator(".job", has_text="spring").locator("h3 a").click()
        assert page.locator(".figure").count() == 4
        page.locator("#look-3").scroll_into_view_if_needed()
        page.locator("#look-3-before").fill("50")
        for place in ("after", "before"):
            picture = page.locator(f"#look-3 .{place} img")
            expect(picture).to_have_js_property("complete", True)
            assert picture.evaluate("img => img.naturalWidth") > 0
        assert "50%" in page.locator("#look-3 .before").evaluate("part => getComputedStyle(part).clipPath")
        page.get_by_role("link", name="Contact sheet").click()
        assert page.url.endswith("/spring/sheet.jpg")
        assert seen.complaints == []


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(laptop: Path, browser: Browser, width: int, scheme: str) -> None:
    pages = sorted(laptop.rglob("*.html"))
    assert len(pages) == 5
    for path in pages:
        window: dict[str, Any] = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme}
        with visit(browser, path.as_uri(), **window) as seen:
            assert seen.audit() == [] and seen.complaints == []


def test_small_pictures_tell_nothing_of_the_photographer(laptop: Path) -> None:
    thumbs = list(laptop.rglob("*.webp"))
    assert len(thumbs) > 10
    for path in thumbs:
        with Image.open(path) as thumb:
            assert thumb.format == "WEBP" and not thumb.getexif() and not thumb.info.get("xmp")


def test_the_copied_line_makes_the_same_picture(daemon: RunningDaemon, browser: Browser, tmp_path: Path) -> None:
    with visit(browser, (daemon.outputs / "spring" / "index.html").as_uri()) as seen:
        line = seen.page.locator("#look-0 code").text_content()
    assert line is not None
    program, *words = shlex.split(line)
    assert program == "fastfit-watch"
    command = [sys.executable, "-m", "fastfit_watch", *words]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr
    name = "p0.look0.png"
    with Image.open(tmp_path / name) as again, Image.open(daemon.outputs / "spring" / name) as first:
        assert np.array_equal(np.asarray(again), np.asarray(first))
