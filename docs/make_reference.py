"""Write the parts of the reference that follow from the code: run it after changing an option or a setting.

    python docs/make_reference.py

`manifest.md`'s table of options, `outfit.schema.json`, and `configuration.md`. A test compares them with the code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastfit_watch.domain.job import Priority
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.options import OPTIONS

DOCS = Path(__file__).parent
DEFAULTS = DOCS.parent / "configs" / "default.yaml"
OPTIONS_MARK = re.compile(r"(<!-- options: made by make_reference.py -->\n).*?(<!-- end of options -->)", re.DOTALL)
TABLE_HEAD = ("| key | default | meaning |", "|---|---|---|")
CONFIGURATION_HEAD = """\
# Configuration

`fastfit-watch run --config FILE` reads settings from YAML. Everything has a default, so a file names only what it
changes; [`configs/`](../configs) holds ready profiles. Unknown keys are refused with a suggestion. `SIGHUP`
(`systemctl reload`) reads the file again: what needs a restart is named in the log.

*This page is made from [`configs/default.yaml`](../configs/default.yaml) by `docs/make_reference.py`.*"""
_FILE = {"type": "string", "minLength": 1, "description": "A file in this folder."}


def manifest_schema() -> dict[str, Any]:
    """The manifest as JSON Schema (draft 2020-12). What depends on the folder's files, only the program can tell."""
    slots = {
        slot.value: _FILE | {"description": f"The {slot.value} to wear: a file in this folder."} for slot in Category
    }
    options = {name: option.value.schema | {"description": option.meaning} for name, option in OPTIONS.items()}
    for name, option in options.items():
        if (default := getattr(SamplingOptions(), name)) is not None:
            option["default"] = default
    people = {
        "person": _FILE | {"description": "The photograph to dress: a file or a pattern such as '*.jpg'."},
        "people": {
            "description": "Photographs to dress: files, or patterns such as '*.jpg'.",
            "oneOf": [_FILE, {"type": "array", "items": _FILE, "minItems": 1}],
        },
    }
    rules: dict[str, Any] = {
        "not": {"required": ["person", "people"]},
        "dependentSchemas": {
            Category.DRESS.value: {"not": {"anyOf": [{"required": ["upper"]}, {"required": ["lower"]}]}}
        },
    }
    wears_something = {"anyOf": [{"required": [slot.value]} for slot in Category]}
    look = {
        "type": "object",
        "properties": slots | people | options,
        "additionalProperties": False,
        **rules,
        **wears_something,
    }
    priorities = [priority.word for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fastfit-watch: outfit.yaml",
        "description": "Who wears what: one outfit for one person, or named looks for everybody.",
        "type": "object",
        "properties": {
            **slots,
            **people,
            **options,
            "priority": {"enum": priorities, "default": "normal", "description": "low gives way to everyone's jobs."},
            "looks": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": r"^\w[\w ._-]{0,59}$"},
                "additionalProperties": look,
                "description": "Outfits by name; the name becomes part of the picture's file name.",
            },
        },
        "additionalProperties": False,
        **rules,
        "if": {"required": ["looks"]},
        "then": {"not": {"anyOf": [{"required": [slot.value]} for slot in Category]}},
        "else": {"allOf": [wears_something, {"anyOf": [{"required": ["person"]}, {"required": ["people"]}]}]},
    }


def options_table() -> str:
    """Every option of a look as a Markdown table."""
    rows = ["| option | values | default | meaning |", "|---|---|---|---|"]
    for name, option in OPTIONS.items():
        default = getattr(SamplingOptions(), name)
        shown = "drawn at random" if default is None else f"`{default}`"
        rows.append(f"| `{name}` | {option.value.expected} | {shown} | {option.meaning} |")
    return "\n".join(rows) + "\n"


def configuration_page(text: str) -> str:
    """The settings of `configs/default.yaml` as tables, section by section, with its own comments as their meaning."""
    page = [CONFIGURATION_HEAD]
    section = None
    for path, default, meaning in settings(text):
        first, _, key = path.partition(".")
        if not key and not default:
            page += ["", f"## {first}", "", *([f"{_sentence(meaning)}", ""] if meaning else []), *TABLE_HEAD]
            section = first
            continue
        if section is None:
            page += ["", "## Folders and weights", "", *TABLE_HEAD]
            section = ""
        page.append(f"| `{path}` | `{default}` | {meaning} |")
    return "\n".join(page) + "\n"


def settings(text: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and comment of every setting in a commented YAML file of two levels; comments may run on.

    A section comes as its bare name with an empty default.
    """
    section, found = "", list[list[str]]()
    for line in text.splitlines():
        running_on = re.fullmatch(r"\s+#\s*(.*)", line)
        entry = re.fullmatch(r"(\s*)(\w+):\s*(.*?)\s*(?:#\s*(.*))?", line)
        if running_on and found:
            found[-1][2] += " " + running_on[1]
        elif entry:
            if not entry[1]:
                section = entry[2]
            found.append([f"{section}.{entry[2]}" if entry[1] else entry[2], entry[3], entry[4] or ""])
    for path, default, meaning in found:
        yield path, default, meaning.replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def main() -> None:
    """Write all of it."""
    schema = json.dumps(manifest_schema(), indent=2) + "\n"
    (DOCS / "outfit.schema.json").write_text(schema, encoding="utf-8")
    page = (DOCS / "manifest.md").read_text(encoding="utf-8")
    page = OPTIONS_MARK.sub(lambda found: found[1] + "\n" + options_table() + "\n" + found[2], page)
    (DOCS / "manifest.md").write_text(page, encoding="utf-8")
    (DOCS / "configuration.md").write_text(configuration_page(DEFAULTS.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
