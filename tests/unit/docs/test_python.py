"""The examples of docs/python.md are run, in order, in a folder with pictures of the names that they use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.drawing.figures import draw_garment, draw_person

PAGE = Path(__file__).parents[3] / "docs" / "python.md"
GARMENTS = {"shirt": Category.UPPER, "jeans": Category.LOWER, "gown": Category.DRESS, "pumps": Category.SHOE}


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw_person(23)).save("anna.jpg")
    for name, slot in GARMENTS.items():
        Image.fromarray(draw_garment(1, slot, (512, 384))).save(f"{name}.jpg")
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 4
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102 - the page's own words
    width, height = names["looks"]["casual"].size
    assert names["sheet"].size == (2 * width, height)
    for picture in ("anna.casual.png", "output.png"):
        with Image.open(picture) as image:
            assert image.size == (width, height)
