"""The options of a look keep their values and kinds on every way between processes, ledger and marks."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from fastfit_watch.domain.look import Framing, ImageFormat, MaskMode, Preset, SamplingOptions

CHANGED = SamplingOptions(40, 2**63 - 1, 3.5, MaskMode.WORN, Framing.PASTE_BACK, ImageFormat.WEBP, Preset.FAST)


def test_the_example_differs_from_the_defaults_in_every_option() -> None:
    default = SamplingOptions()
    assert all(getattr(CHANGED, field.name) != getattr(default, field.name) for field in fields(default))


@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(seed=0), CHANGED])
def test_options_come_back_from_json_and_from_texts(options: SamplingOptions) -> None:
    read = SamplingOptions.from_dict(json.loads(json.dumps(options.to_dict())))
    assert read == options
    assert [type(value) for value in vars(read).values()] == [type(value) for value in vars(options).values()]
    texts = {name: str(value) for name, value in options.to_dict().items() if value is not None}
    assert SamplingOptions.from_dict({**texts, "model": "mini", "rung": "full"}) == options


def test_what_an_older_ledger_lacks_has_its_default() -> None:
    older = CHANGED.to_dict()
    del older["preset"]
    assert SamplingOptions.from_dict(older).preset is Preset.EXACT
    assert SamplingOptions.from_dict({}) == SamplingOptions()


@pytest.mark.parametrize("values", [{"steps": "many"}, {"mask": "half"}, {"seed": "7.5"}, {"steps": []}])
def test_what_is_no_value_is_refused(values: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        SamplingOptions.from_dict(values)
