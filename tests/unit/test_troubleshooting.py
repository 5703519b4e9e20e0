"""Every sentence that an upload, a manifest or a setting can bring about is in the troubleshooting page."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The rooms whose words reach the people who upload or configure.
ROOMS = (
    *("outline", "manifest", "look", "options", "images", "folders", "examine", "settle", "spool", "config", "watch"),
    *("inspector", "intake", "uploads", "taking", "spool_folder", "check", "oneshot"),
)
# What is in these rooms and is said to nobody, or is no message: logs, tables of the reference, results.
OTHER_WORDS = frozenset(
    {
        "([0-9a-fA-F]{64}) [ *](?:\\./)?(.+)",
        "…, …: … picture…",
        ", not …",
        "…: good. …",
        "… … s",
        "… s on … after … s of loading (…)",
        "peak VRAM … GiB",
        "peak VRAM: none, it ran on the CPU",
        "\rstep … of …",
        "--… …: ….",
        "{} in the folder {!r} has no effect: {}",
        "{} in the folder {!r}: the job is now {}",
        "the upload {!r} could not be examined",
        "job {!r} is {}: {}",
    }
)
SHORTEST = 3  # words


def sentences(room: str) -> Iterator[str]:
    """Every string of a room that could be a sentence, with … where values are put in; no docstrings."""
    tree = ast.parse((ROOT / "fastfit_watch" / f"{room}.py").read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formatted for part in ast.walk(node) if part is not node}
    meanings = {
        id(node.args[2])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Option"
    }
    for node in ast.walk(tree):
        if id(node) in bare | parts | meanings:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len(text.split()) >= SHORTEST and text not in OTHER_WORDS:
            yield " ".join(text.split())


@pytest.mark.parametrize("room", ROOMS)
def test_every_sentence_is_explained(room: str) -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    missing = sorted({sentence for sentence in sentences(room) if sentence not in page})
    assert not missing, f"docs/troubleshooting.md lacks these of {room}.py"


def test_no_exception_outlives_its_sentence() -> None:
    known = {part for room in ROOMS for part in _raw(room)}
    assert not {words for words in OTHER_WORDS if "…" not in words} - known


def _raw(room: str) -> Iterator[str]:
    tree = ast.parse((ROOT / "fastfit_watch" / f"{room}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
