"""The map in docs/architecture.md names every package, and no file that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "fastfit_watch"


def test_every_package_has_its_row() -> None:
    rows = set(re.findall(r"^\| `(\w+)/` \|", MAP, re.MULTILINE))
    assert rows == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`(?:\w+/)?\w+\.(?:py|yaml)`", MAP))
    assert len(named) > 15
    for each in sorted(name.strip("`") for name in named):
        found = list(PACKAGE.rglob(each)) + list(ROOT.glob(each))
        assert found, f"docs/architecture.md names {each}, which is not there"
