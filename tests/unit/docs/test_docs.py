"""The documentation follows the code: references are current, examples work, the schema agrees with the program."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ManifestError
from fastfit_watch.intake.manifest import read_manifest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
NAMES = ("anna.jpg", "ben.jpg", "shirt.jpg", "jeans.jpg", "gown.jpg", "clutch.png")
GOOD: tuple[dict[str, Any], ...] = (
    {"person": "anna.jpg", "upper": "shirt.jpg"},
    {"people": ["anna.jpg", "b*.jpg"], "dress": "gown.jpg", "bag": "clutch.png", "steps": 200, "guidance": 1},
    {"person": "anna.jpg", "upper": "shirt.jpg", "seed": 2**63 - 1, "mask": "worn", "format": "jpeg"},
    {"people": "*.jpg", "priority": "low", "looks": {"gala": {"dress": "gown.jpg", "framing": "paste_back"}}},
    {"looks": {"a b.c": {"person": "anna.jpg", "upper": "shirt.jpg", "lower": "jeans.jpg"}}},
)
BAD: tuple[dict[str, Any], ...] = (
    {},
    {"person": "anna.jpg"},
    {"upper": "shirt.jpg"},
    {"person": "anna.jpg", "people": ["ben.jpg"], "upper": "shirt.jpg"},
    {"person": "anna.jpg", "dress": "gown.jpg", "upper": "shirt.jpg"},
    {"person": "anna.jpg", "upper": "shirt.jpg", "step": 3},
    {"person": "anna.jpg", "upper": "shirt.jpg", "steps": 0},
    {"person": "anna.jpg", "upper": "shirt.jpg", "steps": 201},
    {"person": "anna.jpg", "upper": "shirt.jpg", "guidance": 20.5},
    {"person": "anna.jpg", "upper": "shirt.jpg", "mask": "half"},
    {"person": "anna.jpg", "upper": "shirt.jpg", "priority": "urgent"},
    {"person": "anna.jpg", "upper": ["shirt.jpg"]},
    {"people": [], "upper": "shirt.jpg"},
    {"person": "anna.jpg", "looks": {}},
    {"person": "anna.jpg", "looks": {"gala": {}}},
    {"person": "anna.jpg", "looks": {"-gala": {"upper": "shirt.jpg"}}},
    {"person": "anna.jpg", "upper": "shirt.jpg", "looks": {"gala": {"dress": "gown.jpg"}}},
    {"person": "anna.jpg", "looks": {"gala": {"dress": "gown.jpg", "lower": "jeans.jpg"}}},
    {"person": "anna.jpg", "looks": {"gala": {"dress": "gown.jpg", "looks": {}}}},
)


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_made_pages_are_current() -> None:
    made = reference()
    schema = json.loads((DOCS / "outfit.schema.json").read_text(encoding="utf-8"))
    page = (DOCS / "manifest.md").read_text(encoding="utf-8")
    text = (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8")
    remedy = "run docs/make_reference.py"
    assert schema == json.loads(json.dumps(made.manifest_schema())), remedy
    assert made.options_table() in page, remedy
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == made.configuration_page(text), remedy


def test_every_setting_is_explained_with_its_default() -> None:
    text = (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8")
    written = {path: (default, meaning) for path, default, meaning in reference().settings(text)}
    for path, value in _flat(Config().model_dump(mode="json")):
        default, meaning = written[path]
        assert meaning, f"{path} has no comment"
        assert yaml.safe_load(default) == value, path
    assert {path for path, (default, _) in written.items() if default} == {
        path for path, _ in _flat(Config().model_dump(mode="json"))
    }


def _flat(section: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in section.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


@pytest.mark.parametrize("manifest", GOOD, ids=str)
def test_what_the_schema_takes_the_program_takes(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, reference().manifest_schema(), cls=jsonschema.Draft202012Validator)
    assert read_manifest(yaml.safe_dump(manifest).encode(), "outfit.yaml", NAMES).looks


@pytest.mark.parametrize("manifest", BAD, ids=str)
def test_what_the_schema_refuses_the_program_refuses(manifest: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, reference().manifest_schema(), cls=jsonschema.Draft202012Validator)
    with pytest.raises(ManifestError):
        read_manifest(yaml.safe_dump(manifest).encode(), "outfit.yaml", NAMES)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_manifest_in_the_docs_can_be_used(page: Path) -> None:
    for example in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        if re.search(r"^(person|people|looks):", example, re.MULTILINE):
            assert read_manifest(example.encode(), "outfit.yaml", NAMES).looks


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    text = (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8")
    known = {path for path, _, _ in reference().settings(text)}
    sections = "|".join({path.partition(".")[0] for path in known if "." in path})
    named = re.findall(rf"[`'(]((?:{sections})\.(?!md\b|py\b)[a-z]\w*)", page.read_text(encoding="utf-8"))
    assert set(named) - known == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
