"""A headless Chromium for the tests of the gallery, and what a page did while it was open."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

AXE = resources.files("axe_playwright_python") / "axe.min.js"  # axe-core itself, of the package that brings it
NEEDED = "FASTFIT_TESTS_NEED_BROWSER"
PATIENCE_MS = 240_000
expect.set_options(timeout=PATIENCE_MS)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Visit:
    """A page, and all that must not have happened in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def audit(self) -> list[str]:
        """What axe-core finds that is serious or critical, each with its place."""
        # Through the debugger: the page's own policy lets no foreign script in.
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{violation['id']}: {json.dumps([node['html'][:160] for node in violation['nodes']][:3])}"
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
        ]


@contextmanager
def launch() -> Iterator[Browser]:
    """Start Chromium. Where there is none the test is skipped, or fails if the environment says it must not be."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        reason = f"no Chromium on this machine ({', '.join(_NAMES)})"
        if os.environ.get(NEEDED):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, address: str, *, refreshing: bool = False, **options: Any) -> Iterator[Visit]:
    """Open a page in a window of its own. Without `refreshing` it stays as it is, however long it is looked at."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(PATIENCE_MS)
    if not refreshing:  # a page that nobody sees does not refresh itself
        context.add_init_script("Object.defineProperty(document, 'hidden', { value: true })")
    page = context.new_page()
    seen = Visit(page)
    page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("requestfailed", lambda request: seen.complaints.append(f"failed: {request.url} {request.failure}"))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(address)
    yield seen
    context.close()


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder as any static server would; its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
