"""Every sentence that an upload, a manifest, a setting or a command can bring about is in the troubleshooting page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastfit_watch.domain import errors

ROOT = Path(__file__).parents[3]
# The modules all of whose words reach the people who upload or configure. Of the others, what their errors say.
SPOKEN = (
    *("domain/look", "domain/options", "config/settings", "storage/spool", "imaging/codec"),
    *("cli/check", "cli/try_on", "daemon/dispatcher", "daemon/worker_process", "worker/pipeline"),
    *("config/safe_yaml", "intake/manifest", "intake/upload_folder", "intake/validation", "intake/checksums"),
    *("intake/claim", "intake/watcher", "intake/scan", "intake/decoder", "intake/loop", "intake/uploads"),
    *("intake/admission", "intake/review", "intake/control_files", "intake/loose_file_note", "domain/loose_files"),
)
ERRORS = frozenset(
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
)
LEVELS = frozenset({"say", "log_line", "debug", "info", "warning", "error", "critical", "exception"})
# What is in these modules and is said to nobody, or is no message: logs, tables of the reference, results.
OTHER_WORDS = frozenset(
    {
        "…, …: … picture…",
        ", not …",
        "…: good. …",
        "… … s",
        "… s on … after … s of loading (…)",
        "peak VRAM … GiB",
        "peak VRAM: none, it ran on the CPU",
        "\rstep … of …",
        "--… …: ….",
        ", peak VRAM … GiB",
        "… making …/……",
        ", rung …",
        "Exception in thread",
        "Fatal Python error",
        "AcceleratorError|CUDA error|cudaError|CUBLAS_STATUS|CUDNN_STATUS|unspecified launch failure",
        "Traceback (most recent call last)",
    }
)
# What would be a fault of ours, and nothing that anyone could do about.
OUR_FAULTS = frozenset(
    {
        "The look has no seed.",
        "Draw and record a seed before the engine is asked.",
        "The look has no garments.",
        "Give at least one of upper, lower, dress, shoe and bag.",
        "The label maps differ in size: DensePose …, LIP …, ATR ….",
        "All three must come from the same picture.",
        "A mask cannot be made at height …, width …: both must be multiples of 4.",
        "Crop or resize the picture before it is parsed.",
        "… ended as …: …",
    }
)
SHORTEST = 3  # words


def sentences(module: str) -> Iterator[str]:
    """Every string of a module that could be a sentence, with … for values; no docstrings, no log lines."""
    tree = ast.parse((ROOT / "fastfit_watch" / f"{module}.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    meanings = {id(node.args[2]) for node in calls if isinstance(node.func, ast.Name) and node.func.id == "Option"}
    logged = {
        id(argument)
        for node in calls
        if getattr(node.func, "attr", getattr(node.func, "id", "")) in LEVELS
        for argument in node.args
    }
    patterns = {
        id(part)
        for node in calls
        if ast.unparse(node.func) == "re.compile"
        for part in ast.walk(node)
        if part is not node
    }
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    yield from _sentences_in(tree, meanings | logged | patterns | bare)


def errors_of(path: Path) -> Iterator[str]:
    """Every sentence that this file gives to one of our errors."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            yield from (sentence for sentence in _sentences_in(node, set()) if sentence not in OUR_FAULTS)


def _sentences_in(tree: ast.AST, but_not: set[int]) -> Iterator[str]:
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formatted for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if id(node) in parts | but_not:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len(text.split()) >= SHORTEST and text not in OTHER_WORDS:
            yield " ".join(text.split())


PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
OTHERS = [
    path
    for path in sorted((ROOT / "fastfit_watch").rglob("*.py"))
    if str(path.relative_to(ROOT / "fastfit_watch").with_suffix("")) not in SPOKEN
]


@pytest.mark.parametrize("module", SPOKEN)
def test_every_sentence_is_explained(module: str) -> None:
    missing = sorted({sentence for sentence in sentences(module) if sentence not in PAGE})
    assert not missing, f"docs/troubleshooting.md lacks these of {module}.py"


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT / "fastfit_watch")))
def test_every_error_is_explained(path: Path) -> None:
    missing = sorted({sentence for sentence in errors_of(path) if sentence not in PAGE})
    assert not missing, f"docs/troubleshooting.md lacks these of {path.name}"


def test_every_error_has_a_cause_or_a_cure() -> None:
    """A row that repeats the message alone helps nobody, but for those that say what to do themselves."""
    bare = [row for row in PAGE.splitlines() if re.fullmatch(r"\| [^|]+ \| *\| *\|", row)]
    assert [row for row in bare if not re.search(r"[.:] ", row)] == []


def test_no_exception_outlives_its_sentence() -> None:
    known = {part for path in (ROOT / "fastfit_watch").rglob("*.py") for part in _raw(path)}
    assert not {words for words in OTHER_WORDS | OUR_FAULTS if "…" not in words} - known


def _raw(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
