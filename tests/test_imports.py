"""The import directions of the house, executed: who may import whom, and who may import what is heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastfit_watch"

# Each floor imports only from floors above it, or from its own.
FLOORS = (
    {"errors", "allocator"},
    {"look", "rungs"},
    {"job", "failpoints", "exits", "limits", "places", "terminal", "options", "catalogue"},
    {
        "config",
        "outline",
        "images",
        "marks",
        "settle",
        "watch",
        "write",
        "notify",
        "folders",
        "devices",
        "protocol",
        "pace",
        "meter",
        "weights",
        "signing",
        "finish",
        "provenance",
        "letters",
        "durable",
        "stamps",
    },
    {
        "logs",
        "manifest",
        "hub",
        "fetch",
        "models",
        "ledger",
        "ledger_rows",
        "ledger_schema",
        "ledger_withheld",
        "ledger_turns",
        "ledger_orders",
        "ledger_keeping",
        "ledger_letters",
        "ledger_numbers",
        "ledger_views",
        "inspector",
    },
    {"spool", "inspectors", "spool_folder", "rung_notes", "report", "sheet", "gallery", "announce", "hold"},
    {
        "engine",
        "release",
        "examine",
        "uploads",
        "taking",
        "intake",
        "retention",
        "dispatch",
        "resident",
        "check",
        "status",
        "overview",
        "table",
        "tail",
        "completion",
        "webhook",
        "hook",
        "courier",
        "metrics",
        "others",
        "mailroom",
        "uptake",
        "doctor",
        "service",
    },
    {"worker", "workbench", "channel", "studio", "oneshot", "reproduce", "mini"},
    {"daemon", "demo", "bench"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
# Only these may import these, at any depth.
HOMES = {
    "torch": {"engine", "mini", "worker", "workbench", "studio", "bench"},
    "diffusers": {"engine", "mini", "bench"},
    "onnxruntime": {"engine"},
    "transformers": {"engine"},
    "accelerate": {"engine"},
    "huggingface_hub": {"hub"},
    "watchdog": {"watch"},
    "sqlite3": {"ledger", "ledger_rows", "ledger_schema", "ledger_turns", "ledger_letters"},
    "yaml": {"config", "outline"},
    "pydantic": {"config", "manifest"},
    "c2pa": {"signing"},
    "prometheus_client": set(),
    "loguru": {
        "logs",
        "announce",
        "daemon",
        "intake",
        "dispatch",
        "hold",
        "resident",
        "uptake",
        "retention",
        "uploads",
        "taking",
        "webhook",
        "hook",
        "courier",
        "metrics",
    },
}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "fastfit_watch":
                yield from (f"fastfit_watch.{alias.name}" for alias in node.names)


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def test_every_room_has_a_floor() -> None:
    placed = set().union(*FLOORS)
    assert {_room(path) for path in SOURCES} - placed == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    room = _room(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "fastfit_watch" and len(parts) > 1:
            assert floor_of[parts[1]] <= floor_of[room], f"{room} may not import {parts[1]}"
        elif parts[0] in HOMES:
            assert room in HOMES[parts[0]], f"{parts[0]} is not at home in {room}"


def test_the_engine_knows_nothing_of_jobs() -> None:
    allowed = {"engine", "look", "errors", "rungs", "failpoints"}
    for path in (PACKAGE / "engine").rglob("*.py"):
        rooms = {name.split(".")[1] for name in _imports(path) if name.startswith("fastfit_watch.")}
        assert rooms <= allowed, f"{path.name} imports {rooms - allowed}"


@pytest.mark.parametrize("module", ["cli", "check", "status", "daemon", "report", "intake", "dispatch", "resident"])
def test_light_rooms_load_nothing_heavy(module: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'cv2', 'numpy', 'onnxruntime', 'accelerate'}"
    program = f"import sys, fastfit_watch.{module}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
