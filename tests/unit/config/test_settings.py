"""Settings: the shipped file names every key with its true default, and mistakes are explained."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fastfit_watch.config.settings import MAX_BYTES, Config, load_config
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
    assert config.bundle == "mini" and config.inputs == tmp_path / "b"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


BROKEN: dict[str, tuple[str | bytes, int, str]] = {
    "an impossible date": ("watch: {settle_s: 2024-13-45}", 1, "'watch.settle_s'"),
    "a date": ("inputs: a\nbundle: mini\nlimits:\n  files: 2024-01-02\n", 4, "'limits.files'"),
    "a number of 4300 digits": (f"limits: {{files: {'9' * 4301}}}", 1, "'limits.files'"),
    "a number that no kernel takes": (f"\nlimits: {{decode_memory_bytes: {'9' * 4000}}}", 2, "'limits.decode_memory"),
    "a number in base 60": ("log: {rotate_bytes: 1:30:00:99}", 1, "'log.rotate_bytes'"),
    "no number at all": ("watch: {scan_s: .nan}", 1, "'watch.scan_s'"),
    "no end": ("watch: {scan_s: nan}", 1, "'watch.scan_s'"),
    "nesting": ("[" * 3000, 1, "nested"),
    "nesting of maps": ("{a: " * 3000, 1, "nested"),
    "a key twice": ("bundle: mini\ninputs: a\nbundle: mini", 3, "'bundle' is here again; it is in line 1 too"),
    "a key twice in a section": ("log:\n  level: INFO\n  level: INFO", 3, "'level' is here again"),
    "an alias": ("inputs: &a b\noutputs: *a", 1, "anchor"),
    "a tag": ("inputs: !!python/object/apply:os.system [ls]", 1, "tag"),
    "a merge": ("log: {<<: {level: INFO}}", 1, "Merging"),
    "two documents": ("bundle: mini\n---\nbundle: mini\n", 2, "second document"),
    "no value": ("watch:\n  settle_s:\n", 2, "'watch.settle_s' has no value"),
    "an empty section": ("bundle: mini\nwatch:\n", 2, "'watch' has no value"),
    "a list": ("- a\n", 1, "no keys and values"),
    "a word": ("mini\n", 1, "no keys and values"),
    "no end of a list": ("bundle: mini\na: [\n", 3, "not valid YAML"),
    "a null byte": ('inputs: "a\\0b"', 1, "cannot be shown"),
    "half a letter": ('inputs: "a\\ud800b"', 1, "cannot be shown"),
    "a control character": ("bundle: mini\ninputs: \x1b\n", 2, "cannot be shown"),
    "an escape that is none": ('inputs: "\\UFFFFFFFF"', 0, "not valid YAML"),
    "a version of YAML that is none": ("%YAML " + "9" * 5000 + ".1\n---\na: b", 0, "not valid YAML"),
    "UTF-16": ("bundle: mini".encode("utf-16"), 0, "UTF-16"),
    "Latin-1": ("bundle: mini\n# gr\xfc\xdfe".encode("latin-1"), 2, "not UTF-8"),
    "only zeros": (b"\0" * 100, 0, "UTF-16"),
    "curly quotes": ("metrics:\n  listen: \u201clocalhost:80\u201d", 2, "curly quotes"),
    "a tab": ("bundle:\tmini", 1, "a space after the colon"),
    "a tab as indentation": ("log:\n\tlevel: INFO", 2, "Indent with spaces"),
    "a port that is none": ("metrics: {listen: '127.0.0.1:70000'}", 1, "a port is a number from 0 to 65535"),
    "a word for a section": ("engine: fast", 1, "'engine'"),
    "a section for a word": ("bundle: {a: b}", 1, "'bundle'"),
    "a word that needs a list": ("engine:\n  devices: auto", 2, "'engine.devices'"),
    "a wrong item": ("webhook:\n  events:\n  - done\n  - dun\n", 4, "'webhook.events.1'"),
    "two that need each other": ("log: {}\nmarks: {c2pa_key: a}", 2, "'marks': 'c2pa_certificate' and 'c2pa_key'"),
    "a key with control characters": ('log: {"a\\e[31m\\nb": c}', 1, "unknown key 'log.a\\x1b[31m\\nb'"),
    "a key without end": (f"{'k' * 500}: a", 1, "..."),
    "too much": ("# " + "x" * MAX_BYTES, 0, "larger than 1024 KB"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_wrong_setting_is_one_sentence_with_its_line(tmp_path: Path, name: str) -> None:
    text, line, words = BROKEN[name]
    file = tmp_path / "c.yaml"
    file.write_bytes(text if isinstance(text, bytes) else str(text).encode())
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    message = str(caught.value)
    assert words in message and message.isprintable() and len(message) < 1000
    assert message.startswith(f"{file}:{line}: " if line else f"{file}: ")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("allow_smaller: yes", "memory", True),
        ("allow_smaller: 'true'", "memory", True),
        ("model: 12345", "content_filter", "12345"),
        ("settle_s: 1e1", "watch", 10.0),
        ("rotate_bytes: 10_000", "log", 10_000),
        ("rotate_bytes: 010", "log", 10),
        ('secret_file: ""', "webhook", ""),
        ("command: [/bin/echo, 7, 2024-13-45]", "hook", ("/bin/echo", "7", "2024-13-45")),
    ],
)
def test_what_a_text_means_is_for_its_setting_to_say(tmp_path: Path, text: str, key: str, value: object) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"{key}: {{{text}}}".replace("model: 1", "labels: [a], model: 1"), encoding="utf-8")
    assert getattr(getattr(load_config(file), key), text.split(":")[0]) == value


@pytest.mark.parametrize("text", ["", "# nothing set\n", "---\n", "~", "\ufeffbundle: fastfit-mr-1024\r\n"])
def test_a_file_that_sets_nothing_leaves_the_defaults(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_config(file) == Config()


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(st.binary(max_size=60) | st.text("{}[]:,-?&*!|>'\"%@`# \n\ta0\\<.", max_size=60).map(str.encode))
def test_whatever_stands_in_the_file_is_settings_or_a_sentence(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            assert isinstance(load_config(Path(file.name)), Config)
        except ConfigError as error:
            assert str(error).isprintable()
