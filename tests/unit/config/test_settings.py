"""Settings: the shipped file names every key with its true default, and mistakes are explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fastfit_watch.config.settings import Config, load_config
from fastfit_watch.domain.errors import ConfigError

DEFAULT = Path(__file__).parents[3] / "configs" / "default.yaml"


def test_default_yaml_names_every_setting_with_its_default() -> None:
    written = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    assert written == Config().model_dump(mode="json")


def test_every_line_of_default_yaml_that_sets_something_says_why() -> None:
    lines = [line for line in DEFAULT.read_text(encoding="utf-8").splitlines() if ":" in line.split("#")[0]]
    unexplained = [line for line in lines if "#" not in line and not line.rstrip().endswith(":")]
    assert unexplained == []


def test_unknown_key_is_named_with_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("watch: {setle_s: 3}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"unknown key 'watch.setle_s'. Did you mean 'settle_s'\?"):
        load_config(file)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("bundel: mini\nengine: {max_deaths: 0}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert "'bundel'" in caught.value.message and "'engine.max_deaths'" in caught.value.message


def test_command_line_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("bundle: mini\ninputs: a\n", encoding="utf-8")
    config = load_config(file, {"inputs": tmp_path / "b"})
    assert config.bundle == "mini" and config.inputs == tmp_path / "b" and config.spool == tmp_path / "b" / ".spool"


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        load_config(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")
