"""The table of scenarios and the list of guards name what exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).parents[2]
PACKAGE = TESTS.parent / "fastfit_watch"
TABLE = (TESTS / "campaigns" / "README.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`((?:unit|integration|campaigns)/[\w/]+\.py(?:::\w+)?)`", TABLE)


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TESTS / "campaigns")
    return importlib.import_module("guards")


def exists(named: str) -> bool:
    """Is there such a program, or a test function of this name in this file?"""
    file, _, function = named.partition("::")
    path = TESTS / file
    if not function or not path.is_file():
        return path.is_file()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body)


def test_every_scenario_is_proven_by_something_that_exists() -> None:
    rows = re.findall(r"^\| (\d+) \|[^|]+\|([^|]+)\|$", TABLE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    assert all("`" in proof for _, proof in rows)
    assert len(NAMED) > 25
    assert [named for named in NAMED if not exists(named)] == []
    assert not exists("unit/campaigns/test_scenarios.py::test_that_is_not_there")


def test_every_guard_stands_where_the_list_says_and_its_test_exists(guards: ModuleType) -> None:
    for guard in guards.GUARDS:
        assert (PACKAGE / guard.file).read_text(encoding="utf-8").count(guard.text) == 1, guard.name
        assert exists(guard.test.partition("[")[0]), guard.test
