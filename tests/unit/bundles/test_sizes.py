"""What a bundle takes is known before it is fetched, and agrees with the networks as they are built here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastfit_watch.bundles.catalogue import KNOWN
from fastfit_watch.bundles.sizes import SIZES
from fastfit_watch.cli.doctor.finding import Level
from fastfit_watch.cli.doctor.weights import examine_weights
from fastfit_watch.cli.main import main
from fastfit_watch.config.settings import Config


def test_every_bundle_that_can_be_fetched_has_a_size() -> None:
    assert SIZES.keys() == KNOWN.keys()
    for size in SIZES.values():
        assert 4 * 10**9 < size.disk_bytes < 7 * 10**9
        assert size.card_bytes == 8 * 2**30


def test_absent_bundles_are_listed_with_what_they_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--models", str(tmp_path)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "state", "here", "disk", "card", "revision", "licence"]
    found = {row.split()[0]: row.split()[1:8] for row in rows}
    assert found["fastfit-mr-1024"] == ["absent", "0", "bytes", "5.5", "GB", "8.6", "GB"]
    assert (found["mini"][0], found["mini"][5]) == ("shipped", "none")
    assert main(["models", "list", "--models", str(tmp_path), "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["fastfit-sr-1024"]["disk_bytes"] == SIZES["fastfit-sr-1024"].disk_bytes
    assert entries["mini"]["disk_bytes"] == entries["mini"]["bytes"] > 0


def test_a_bundle_of_ones_own_has_no_size_that_anybody_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "bundle.json").write_text(json.dumps({"licence": "mine", "revision": "1"}))
    assert main(["models", "list", "--models", str(tmp_path), "--json"]) == 0
    (own,) = (entry for entry in json.loads(capsys.readouterr().out) if entry["name"] == "own")
    assert (own["disk_bytes"], own["card_bytes"]) == (None, None)
    assert main(["models", "list", "--models", str(tmp_path)]) == 0
    assert "own              complete" in capsys.readouterr().out


def test_doctor_says_what_an_absent_bundle_takes(tmp_path: Path) -> None:
    finding = examine_weights(Config(models=tmp_path))[0]
    assert finding.level is Level.WARN
    assert "up to 5.5 GB on the disk, and 8.6 GB on the card" in finding.message
