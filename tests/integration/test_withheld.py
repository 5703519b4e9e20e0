"""The content filter on the running daemon: a flagged picture is nowhere to be seen, not lost, and can be released."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.hub_server import HubServer
from support.running_daemon import draw_upload

from fastfit_watch.config.settings import Config, ContentFilterSettings
from fastfit_watch.daemon.worker_process import worker_command
from fastfit_watch.domain.worker_protocol import Ready, read_message

CLASSIFIER = Path(__file__).parents[1] / "support" / "tiny_classifier.py"
PATIENCE_S = 240.0
LOOK = "p0.look0"


class Home:
    """A folder with a daemon whose filter flags every picture."""

    def __init__(self, root: Path) -> None:
        self.root = root
        subprocess.run([sys.executable, str(CLASSIFIER), str(root / "classifier"), "0", "3", "0"], check=True)
        config = {
            "bundle": "mini",
            "watch": {"settle_s": 0.3, "scan_s": 0.2},
            "limits": {"min_free_bytes": 0},
            "engine": {"devices": ["cpu"]},
            "content_filter": {"model": "classifier", "labels": ["nsfw"], "threshold": 0.5},
        }
        (root / "config.yaml").write_text(json.dumps(config), encoding="utf-8")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fastfit_watch", *words, "--config", "config.yaml"]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.root / "outputs" / "spring" / "report.json").read_text(encoding="utf-8")))

    def status(self) -> str:
        return (self.root / "outputs" / "spring" / "status.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    draw_upload(home.root / "inputs" / "spring", looks=2, steps=1)
    done = home.command("run", "--once")
    assert done.returncode == 0, done.stderr
    return home


def test_withheld_released_discarded(home: Home) -> None:
    withheld = home.root / "inputs" / ".spool" / "jobs" / "spring" / "withheld"
    assert stat.S_IMODE(withheld.stat().st_mode) == 0o700
    picture = (withheld / f"{LOOK}.png").read_bytes()
    results = [path.name for path in (home.root / "outputs").rglob("p0.*") if path.suffix in (".png", ".jpg", ".webp")]
    assert results == []

    report = home.report()
    reason = "the content filter sees nsfw (0.91, the limit is 0.50)"
    assert [(look["status"], look["reason"]) for look in report["looks"]] == [("withheld", reason)] * 2
    said = f"0 pictures made; 2 withheld: p0.look0, p0.look1: {reason}"
    assert (report["status"], report["reason"]) == ("done", said)
    assert "withheld: p0.look0: the content filter sees nsfw" in home.status()
    gallery = (home.root / "outputs" / "index.html").read_text(encoding="utf-8")
    assert "2 pictures withheld by the content filter" in gallery and "fastfit-watch release spring" in gallery
    said = home.command("status").stdout
    assert "withheld" in said and "the content filter sees nsfw" in said

    listed = home.command("release", "spring").stdout
    assert f"{LOOK}: {reason}" in listed and f"{LOOK}.png" in listed
    wrong = home.command("release", "spring", "p0.look9")
    assert wrong.returncode == 2 and "Withheld are: p0.look0, p0.look1." in wrong.stderr

    released = home.command("release", "spring", LOOK)
    assert released.returncode == 0 and "released; spring is done: 1 picture made; 1 withheld" in released.stdout
    assert (home.root / "outputs" / "spring" / f"{LOOK}.png").read_bytes() == picture
    assert home.command("release", "spring", "p0.look1", "--discard").returncode == 0
    assert list(withheld.iterdir()) == []

    home.command("run", "--once")  # the daemon, at its next start, says it to everyone
    looks = home.report()["looks"]
    assert looks[0]["status"] == "done" and looks[0]["sha256"] == hashlib.sha256(picture).hexdigest()
    assert (looks[1]["status"], looks[1]["reason"]) == ("failed", "discarded after review")
    assert home.report()["status"] == "failed"


def test_a_filter_from_the_hub_is_fetched_once_and_pinned(tmp_path: Path) -> None:
    def publish() -> str:
        command = [sys.executable, str(CLASSIFIER), str(tmp_path / "made"), "0", "3", "0"]
        subprocess.run(command, check=True, capture_output=True)
        return hub.publish("anna/filter", {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()})

    def start_engine() -> str:
        """Until it is ready; what it said."""
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
        chosen = ContentFilterSettings(model="anna/filter", labels=("nsfw",))
        command = worker_command(Config(bundle="mini", models=tmp_path / "Models", content_filter=chosen), "cpu")
        log = tmp_path / "log"
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            ) as worker,
        ):
            assert worker.stdin is not None and worker.stdout is not None
            ready = any(isinstance(read_message(line), Ready) for line in worker.stdout if '"ready"' in line)
            worker.stdin.close()
        assert ready, log.read_text()
        return log.read_text()

    hub = HubServer()
    try:
        told = f"content filter: anna/filter at revision {publish()}"
        assert told in start_engine()
        assert any(path.name == "model.safetensors" for path in (tmp_path / "Models" / "content-filter").rglob("*"))
        assert told.removesuffix(publish()) == told, "there is a newer one"
        hub.seen.clear()
        assert told in start_engine()
        assert hub.seen == [], "and nobody is asked, about anything"
    finally:
        hub.close()
