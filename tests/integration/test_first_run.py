"""The first run on a machine that has nothing but a network: weights come by themselves, and a picture is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.hub_server import HubServer
from support.released_files import write_model, write_toolkit

from fastfit_watch.bundles.catalogue import KNOWN

NAME = "fastfit-mr-1024"
MODEL, TOOLKIT = (repository.name for repository in KNOWN[NAME].repositories)
TOKEN = "hf_secretOfBen"  # noqa: S105 - it opens nothing
PATIENCE_S = 400.0


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """The released repositories: networks of the true contracts, small where their sizes are free."""
    folder = tmp_path_factory.mktemp("published")
    write_model(folder / "model")
    write_toolkit(folder / "toolkit")
    hub = HubServer()
    hub.publish(MODEL, files_of(folder / "model"))
    hub.publish(TOOLKIT, files_of(folder / "toolkit"))
    hub.token = TOKEN
    yield hub
    hub.close()


def drain(home: Path, endpoint: str) -> str:
    """Run the daemon until all is done; what it said."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "HF_TOKEN": TOKEN}
    command = [sys.executable, "-m", "fastfit_watch", "run", "--once", "--config", "config.yaml"]
    done = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_daemon_fetches_what_it_needs_and_makes_a_picture_of_full_size(tmp_path: Path, hub: HubServer) -> None:
    config = {
        "bundle": NAME,
        "watch": {"settle_s": 0.3, "scan_s": 0.2},
        "limits": {"min_free_bytes": 0},
        "engine": {"devices": ["cpu"]},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    upload = tmp_path / "inputs" / "spring"
    upload.mkdir(parents=True)
    Image.effect_noise((300, 400), 90).convert("RGB").save(upload / "anna.png")
    Image.new("RGB", (300, 400), "navy").save(upload / "shirt.png")
    (upload / "outfit.yaml").write_text("person: anna.png\nupper: shirt.png\nsteps: 1\nseed: 7\n", encoding="utf-8")
    hub.break_at["DensePose/model_final_162be9.pkl"] = 10_000_000

    said = drain(tmp_path, hub.endpoint)
    assert "forbids commercial use" in said and "going on from there" in said
    with Image.open(next((tmp_path / "outputs" / "spring").glob("anna.*.png"))) as picture:
        assert picture.size == (768, 1024)
    versions = json.loads((tmp_path / "outputs" / "spring" / "report.json").read_text())["looks"][0]["versions"]
    pinned = "+".join(hub.repos[name].main[:12] for name in (MODEL, TOOLKIT))
    assert versions["bundle"] == f"{NAME} {pinned}"
    assert "non-commercial" in versions["licence"]
    told = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in said and told == []

    hub.seen.clear()
    drain(tmp_path, hub.endpoint)
    assert hub.seen == [], "what is here is never asked for again"
