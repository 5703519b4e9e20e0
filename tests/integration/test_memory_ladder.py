"""A full device, on the running daemon with the real engine: the look goes down the ladder, and it is remembered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.running_daemon import draw_upload

from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.failpoints import VARIABLE

PATIENCE_S = 240.0
# One shortage on every rung, each in another stage; the second step of the denoising, for one.
EVERYWHERE = "full.parse:1 halves.encode:1 offload.references:1 sequential.step:2 tiles.decode:1"


class Home:
    """A folder with its own settings, and daemons that drain it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.configure()

    def configure(self, **memory: Any) -> None:
        config = {
            "bundle": "mini",
            "watch": {"settle_s": 0.3, "scan_s": 0.2},
            "limits": {"min_free_bytes": 0},
            "engine": {"devices": ["cpu"], "backoff_s": 0.1, "backoff_max_s": 0.2, "max_attempts": 2},
            "memory": memory,
        }
        (self.root / "config.yaml").write_text(json.dumps(config), encoding="utf-8")

    def drain(self, shortages: str = "") -> str:
        """Run until all is done; returns what the daemon said."""
        command = [sys.executable, "-m", "fastfit_watch", "run", "--once", "--config", "config.yaml"]
        paths = " ".join(f"memory.{place}:ENOMEM" for place in shortages.split())
        environment = {**os.environ, VARIABLE: paths} if paths else dict(os.environ)
        done = subprocess.run(
            command, cwd=self.root, env=environment, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False
        )
        self.exit_code = done.returncode
        return done.stderr

    def report(self, job: str) -> dict[str, Any]:
        return dict(json.loads((self.root / "outputs" / job / "report.json").read_text(encoding="utf-8")))

    def rungs(self, job: str) -> list[str]:
        return [look["rung"] for look in self.report(job)["looks"]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_shortage_in_every_stage_costs_no_look_and_is_remembered(home: Home) -> None:
    home.configure(allow_smaller=True)
    draw_upload(home.root / "inputs" / "first", people=1, looks=2)
    said = home.drain(EVERYWHERE)
    assert home.exit_code == 0, said
    looks = home.report("first")["looks"]
    assert [look["status"] for look in looks] == ["done", "done"]
    stages = ["parse", "encode", "references", "denoise", "decode"]
    assert looks[0]["shortages"] == dict(zip(map(str, Rung), stages, strict=False))
    assert (looks[0]["rung"], looks[0]["attempts"], looks[0]["height"]) == ("smaller", 1, 288)
    assert (looks[1]["rung"], looks[1]["shortages"]) == ("smaller", {}), "what was learnt serves the look in hand, too"
    for rung in list(Rung)[1:]:
        assert f"Trying '{rung}'" in said

    draw_upload(home.root / "inputs" / "second")
    assert "Trying" not in home.drain(), "after a restart the rung that worked is used at once"
    assert home.rungs("second") == ["smaller"]

    home.configure(start="halves")
    draw_upload(home.root / "inputs" / "third")
    home.drain()
    assert home.rungs("third") == ["halves"], "another setting begins anew"


def test_without_permission_pictures_never_shrink_and_a_retry_begins_at_the_top(home: Home) -> None:
    everywhere_full = " ".join(f"{rung}.decode:1" for rung in Rung if rung is not Rung.SMALLER)
    draw_upload(home.root / "inputs" / "spring", steps=1)
    said = home.drain(everywhere_full)
    assert home.exit_code == 1, said
    look = home.report("spring")["looks"][0]
    assert look["status"] == "failed" and look["attempts"] == 2
    assert "full (decode), halves (decode), offload (decode), sequential (decode), tiles (decode)" in look["reason"]

    with closing(Ledger(home.root / "inputs" / ".spool" / "ledger.db")) as ledger:
        ledger.requests.retry("spring", 1.0)
    home.drain()
    assert home.rungs("spring") == ["full"]
