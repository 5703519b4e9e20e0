"""README's two commands are the ones that CI runs and that the program knows; its examples are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastfit_watch.intake.manifest import read_manifest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_second_command_word_for_word() -> None:
    second = _blocks("sh")[1].strip()
    assert second.endswith("pytest")
    assert second in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_first_command_runs_the_demo() -> None:
    assert _blocks("sh")[0].strip().endswith("fastfit-watch demo")


@pytest.mark.parametrize("number", [0, 1])
def test_the_manifests_shown_are_valid(number: int) -> None:
    names = ("anna.jpg", "ben.jpg", "shirt.jpg", "jeans.jpg", "gown.jpg", "clutch.png")
    manifest = read_manifest(_blocks("yaml")[number].encode(), "outfit.yaml", names)
    assert len(manifest.looks) == (1, 3)[number]
    assert manifest.missing == ()


def test_every_file_that_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
