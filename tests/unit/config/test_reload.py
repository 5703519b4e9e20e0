"""Which settings a reload takes over, and that it forgets none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from fastfit_watch.config.reload import fixed_changes, live_settings
from fastfit_watch.config.settings import Config


def _keys() -> Iterator[str]:
    """Every key, as in `engine.devices`."""
    for name, field in Config.model_fields.items():
        section = field.default
        if isinstance(section, BaseModel):
            yield from (f"{name}.{key}" for key in type(section).model_fields)
        elif dataclasses.is_dataclass(section):
            yield from (f"{name}.{key.name}" for key in dataclasses.fields(section))
        else:
            yield name


def _with(key: str, value: Any) -> Config:
    """The default settings with one key changed; values are not checked."""
    name, _, inner = key.partition(".")
    section = getattr(Config(), name)
    if not inner:
        return Config().model_copy(update={name: value})
    changed: Any = section.model_copy(update={inner: value}) if isinstance(section, BaseModel) else None
    return Config().model_copy(update={name: changed or dataclasses.replace(section, **{inner: value})})


def _read(config: Config, key: str) -> Any:
    name, _, inner = key.partition(".")
    section = getattr(config, name)
    return getattr(section, inner) if inner else section


@pytest.mark.parametrize("key", list(_keys()))
def test_every_key_is_applied_or_named(key: str) -> None:
    wanted = _with(key, "changed")
    applied = _read(live_settings(Config(), wanted), key) == "changed"
    named = fixed_changes(Config(), wanted)
    assert applied != bool(named), f"{key}: applied {applied}, named {named}"
    assert all(key.startswith(name) for name in named)


def test_nothing_changed_is_nothing_to_say() -> None:
    assert fixed_changes(Config(), Config()) == []
    assert live_settings(Config(), Config()) == Config()


@pytest.mark.parametrize("key", ["inputs", "bundle", "engine.devices", "watch.events"])
def test_what_the_processes_were_started_with_stays(key: str) -> None:
    assert fixed_changes(Config(), _with(key, "changed")) == [key]


@pytest.mark.parametrize("key", ["engine.stall_s", "watch.settle_s", "limits.files", "log.level"])
def test_times_limits_and_logs_change_while_it_runs(key: str) -> None:
    assert _read(live_settings(Config(), _with(key, "changed")), key) == "changed"
