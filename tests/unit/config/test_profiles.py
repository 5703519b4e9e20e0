"""The shipped profiles: every key is known and explained, and the one for this machine runs from any folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastfit_watch.config.settings import load_config
from fastfit_watch.domain.memory_ladder import Rung

CONFIGS = Path(__file__).parents[3] / "configs"
DEFAULT = CONFIGS / "default.yaml"
NAMES = ("rtx3060-12gb", "rtx3090", "h200", "mini-cpu")


def _keys(settings: dict[str, Any], before: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in settings.items():
        found |= _keys(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}"}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_names_only_known_keys_and_loads(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert _keys(written) <= _keys(yaml.safe_load(DEFAULT.read_text(encoding="utf-8")))
    config = load_config(path)
    for key, value in written.items():
        section = getattr(config, key)
        if isinstance(value, dict):
            assert (
                section.model_dump(mode="json", include=set(value)) == value if hasattr(section, "model_dump") else True
            )
        else:
            assert str(section) == value


def test_every_profile_in_the_folder_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*NAMES, "default"}


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_a_profile_is_explained(name: str) -> None:
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    settings = [line for line in lines if ":" in line.split("#")[0] and not line.split("#")[0].rstrip().endswith(":")]
    assert [line for line in settings if "#" not in line and not line.startswith("bundle:")] == []


def test_the_cards_profiles_begin_at_the_top_and_shrink_nothing() -> None:
    for name in ("rtx3060-12gb", "rtx3090", "h200"):
        config = load_config(CONFIGS / f"{name}.yaml")
        assert (config.memory.start, config.memory.allow_smaller) == (Rung.FULL, False)
        assert (config.engine.dtype, config.engine.pose) == ("bfloat16", "cpu")
    assert load_config(CONFIGS / "rtx3060-12gb.yaml").engine.memory_bytes == 11 * 2**30


def test_a_profile_works_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastfit_watch", "run", "--once", "--config", str(CONFIGS / "mini-cpu.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "inputs" / ".spool" / "ledger.db").is_file() and (tmp_path / "outputs").is_dir()
