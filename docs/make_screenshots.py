"""Make docs/gallery-*.webp and docs/contact-sheet.jpg from a finished demo, with the Chromium of this machine.

fastfit-watch demo && python docs/make_screenshots.py

A second upload with a mistake in its manifest is added first, so that a failure is to be seen as well. The pictures use
the fonts of this machine; Inter looks best.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageOps
from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).parent
LIMIT_BYTES = 200_000
WIDE, PHONE = (1280, 960), (390, 844)
BROKEN = """\
people: [anna.jpg]
looks:
  office: {uper: blazer.png, lower: jeans.png, steps: 500}
"""


def main() -> None:
    """Photograph the front page and a job's page, light and dark, wide and on a phone, and copy the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=Path, default=Path("inputs"), help="of the demo (default: inputs)")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="of the demo (default: outputs)")
    settings = parser.parse_args()
    add_a_mistake(settings.inputs, settings.outputs)
    front, job = (settings.outputs.absolute() / path for path in ("index.html", "demo/index.html"))
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        photograph(browser, front, "gallery-front", WIDE, "light")
        photograph(browser, job, "gallery-job", WIDE, "dark")
        photograph(browser, job, "gallery-phone", PHONE, "light")
        browser.close()
    with Image.open(settings.outputs / "demo" / "sheet.jpg") as sheet:
        save(ImageOps.contain(sheet, (1280, 1600), Image.Resampling.LANCZOS), DOCS / "contact-sheet.jpg")


def add_a_mistake(inputs: Path, outputs: Path) -> None:
    """Upload a folder whose manifest is wrong; the daemon judges it, and renews pages of an older version."""
    folder = inputs / "office"
    folder.mkdir(exist_ok=True)
    (folder / "outfit.yaml").write_text(BROKEN, encoding="utf-8")
    command = [sys.executable, "-m", "fastfit_watch", "run", "--once", "--bundle", "mini"]
    subprocess.run([*command, "--inputs", str(inputs), "--outputs", str(outputs)], check=False)


def photograph(browser: Browser, page: Path, name: str, size: tuple[int, int], scheme: str) -> None:
    """One window, its first slider half open."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )
    window = context.new_page()
    window.goto(page.as_uri())
    slider = window.locator(".compare input").first
    if slider.count():
        slider.fill("50")
        slider.blur()
    window.wait_for_load_state("networkidle")
    window.wait_for_timeout(500)
    with Image.open(io.BytesIO(window.screenshot())) as picture:
        save(picture.convert("RGB"), DOCS / f"{name}.webp")
    context.close()


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture as well as the size limit for files in docs/ allows."""
    for quality in range(90, 40, -10):
        picture.save(path, quality=quality)
        if path.stat().st_size < LIMIT_BYTES:
            return
    raise SystemExit(f"{path} is too large")


if __name__ == "__main__":
    main()
