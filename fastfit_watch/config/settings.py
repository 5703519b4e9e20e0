"""Settings, read once from YAML. `configs/default.yaml` lists every key with its unit and reason."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastfit_watch.config.paths import Paths
from fastfit_watch.config.safe_yaml import (
    SHOWN,
    Faults,
    Node,
    YamlList,
    YamlMap,
    YamlScalar,
    explain_lookalikes,
    read_yaml,
)
from fastfit_watch.domain.engine_setup import EngineSetup, FilterSetup
from fastfit_watch.domain.errors import ConfigError, Fault
from fastfit_watch.domain.finishing import Finishing, SigningIdentity
from fastfit_watch.domain.limits import Count, Limits, Seconds, Size
from fastfit_watch.domain.memory_ladder import Rung, ladder

EventName = Literal["done", "failed", "cancelled"]

# In the form that daemon/retention.py reads.
Duration = Annotated[str, Field(pattern=r"^(forever|\d{1,5}(min|h|d|w))$")]


MAX_BYTES = 1024 * 1024
"""Largest settings file that is read."""


def _has_port(address: str) -> str:
    if address and not 0 <= int(address.rpartition(":")[2]) < 2**16:
        raise ValueError("a port is a number from 0 to 65535")
    return address


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WatchSettings(_Section):
    """How uploads are found and when they count as complete."""

    events: Literal["auto", "poll"] = "auto"
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    scan_s: Seconds = 2.0
    quiet_scan_s: Seconds = 30.0
    stalled_after_s: Seconds = 600.0


class EngineSettings(_Section):
    """The engine processes: one for each device."""

    devices: tuple[str, ...] = ("auto",)
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    pose: Literal["cpu", "gpu"] = "cpu"
    densepose: Literal["builtin", "detectron2"] = "builtin"
    memory_bytes: Size = 0
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    gpu_cache_bytes: Size = 8 * 1024**3
    cache_bytes: Size = 1024**3
    load_timeout_s: Seconds = 900.0
    stall_s: Seconds = 180.0
    max_rss_bytes: Size = 0
    max_deaths: Count = 3
    max_attempts: Count = 5
    backoff_s: Seconds = 5.0
    backoff_max_s: Seconds = 300.0


class MemorySettings(_Section):
    """The memory ladder: what is done when a device is too small. See `domain/memory_ladder.py`."""

    start: Rung = Rung.FULL
    allow_smaller: bool = False
    remember_s: Seconds = 86400.0

    @model_validator(mode="after")
    def _refuse_an_empty_ladder(self) -> MemorySettings:
        if not ladder(self.start, allow_smaller=self.allow_smaller):
            raise ValueError("'start: smaller' needs 'allow_smaller: true'")
        return self


class ContentFilterSettings(_Section):
    """A classifier that judges every result. Off while `model` is empty."""

    model: str = ""
    labels: tuple[str, ...] = ()
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    device: Literal["cpu", "gpu"] = "cpu"

    @model_validator(mode="after")
    def _want_labels(self) -> ContentFilterSettings:
        if self.model and not self.labels:
            raise ValueError("name in 'labels' which of the model's labels are withheld")
        return self


class RetentionSettings(_Section):
    """How long what belongs to finished jobs is kept. What is not finished is never removed."""

    keep_uploads: Duration = "30d"
    keep_results: Duration = "forever"
    make_room: bool = False


class LogSettings(_Section):
    """The daemon's own log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"
    console_level: Literal["", "DEBUG", "INFO", "WARNING", "ERROR"] = ""
    rotate_bytes: Count = 10 * 1024**2
    keep_files: Count = 10


class ProvenanceSettings(_Section):
    """The marks of a result beside the XMP packet that it always has."""

    label: Annotated[str, Field(max_length=40, pattern=r"^[ -~\xa1-\xff]*$")] = ""
    c2pa_certificate: str = ""
    c2pa_key: str = ""
    c2pa_algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = "es256"
    c2pa_timestamp_url: str = ""

    @model_validator(mode="after")
    def _want_both(self) -> ProvenanceSettings:
        if bool(self.c2pa_certificate) != bool(self.c2pa_key):
            raise ValueError("'c2pa_certificate' and 'c2pa_key' are needed both, or neither")
        return self

    @property
    def finish(self) -> Finishing:
        """The settings as the engine process takes them."""
        if not self.c2pa_key:
            return Finishing(self.label)
        paths = Path(self.c2pa_certificate), Path(self.c2pa_key)
        return Finishing(self.label, SigningIdentity(*paths, self.c2pa_algorithm, self.c2pa_timestamp_url))


class WebhookSettings(_Section):
    """A message to another machine when a job is finished. Off while `url` is empty."""

    url: Annotated[str, Field(pattern=r"^(https?://[^\s]+)?$")] = ""
    secret_file: str = ""
    events: tuple[EventName, ...] = ("done", "failed")
    timeout_s: Seconds = 10.0
    backoff_s: Seconds = 5.0
    backoff_max_s: Seconds = 300.0
    give_up_s: Seconds = 259200.0
    keep_s: Seconds = 2592000.0

    @model_validator(mode="after")
    def _want_a_secret(self) -> WebhookSettings:
        if self.url and not self.secret_file:
            raise ValueError("a webhook needs 'secret_file', so that its receiver can know it")
        return self


class HookSettings(_Section):
    """A program that is run when a job is finished. Off while `command` is empty."""

    command: tuple[str, ...] = ()
    events: tuple[EventName, ...] = ("done", "failed")
    timeout_s: Seconds = 60.0


class MetricsSettings(_Section):
    """Numbers for Prometheus."""

    textfile: str = ""
    listen: Annotated[
        str, Field(pattern=r"^((127\.[0-9.]+|localhost|\[::1\]):[0-9]{1,5})?$"), AfterValidator(_has_port)
    ] = ""
    every_s: Seconds = 15.0


class Config(_Section):
    """Every setting of the daemon. Relative paths are relative to the working directory."""

    inputs: Path = Paths.inputs
    outputs: Path = Paths.outputs
    logs: Path = Paths.logs
    models: Path = Path("Models")
    bundle: str = "fastfit-mr-1024"
    watch: WatchSettings = WatchSettings()
    engine: EngineSettings = EngineSettings()
    memory: MemorySettings = MemorySettings()
    content_filter: ContentFilterSettings = ContentFilterSettings()
    limits: Limits = Limits()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    marks: ProvenanceSettings = ProvenanceSettings()
    webhook: WebhookSettings = WebhookSettings()
    hook: HookSettings = HookSettings()
    metrics: MetricsSettings = MetricsSettings()

    def engine_setup(self, device: str) -> EngineSetup:
        """Return what the engine of one device is made of."""
        chosen = self.content_filter
        return EngineSetup(
            self.bundle,
            self.models,
            device,
            dtype=self.engine.dtype,
            threads=self.engine.threads,
            pose=self.engine.pose,
            densepose=self.engine.densepose,
            cache_bytes=(self.engine.gpu_cache_bytes, self.engine.cache_bytes),
            memory_bytes=self.engine.memory_bytes,
            rungs=ladder(self.memory.start, allow_smaller=self.memory.allow_smaller),
            content_filter=FilterSetup(**chosen.model_dump()) if chosen.model else None,
        )


_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_VALUE_ERROR = "Value error, "  # how pydantic begins what our own validators say
_Location = tuple[int | str, ...]


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read settings from a YAML file (None: the defaults), then apply command-line overrides.

    Raises ConfigError naming every wrong key with its line, and the nearest known one as a suggestion.
    """
    faults = Faults(str(path) if path else "command line", _config_error)
    values: dict[str, Any] = {}
    lines: dict[_Location, int] = {}
    if path is not None:
        values = _read_settings(path, lines, faults)
    for key, value in (overrides or {}).items():
        values[key] = value
        lines[key,] = 0
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        for each in error.errors():
            location = each["loc"]
            known = (location[:length] for length in range(len(location), 0, -1) if location[:length] in lines)
            faults.add(lines.get(next(known, ()), 0), *_explain(location, each["type"], each["msg"], each["input"]))
        faults.raise_if_any()
        raise


def _config_error(faults: tuple[Fault, ...]) -> ConfigError:
    return ConfigError("; ".join(str(fault) for fault in faults))


def _read_settings(path: Path, lines: dict[_Location, int], faults: Faults) -> dict[str, Any]:
    """Return the settings of a file as texts, lists and tables, and write the line of each into `lines`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        faults.stop(0, f"The file is larger than {MAX_BYTES // 1024} KB.", "Name the file of settings.")
    root = read_yaml(data, faults)
    if isinstance(root, YamlScalar) and root.is_absent:
        return {}
    settings = _plain(root, (), lines, faults)
    if not isinstance(settings, dict):
        faults.stop(root.line, "There are no keys and values here.", "Write for example 'bundle: mini'.")
    faults.raise_if_any()
    return settings


def _plain(node: Node, location: _Location, lines: dict[_Location, int], faults: Faults) -> Any:
    """The value of a node as pydantic takes it. What no setting can be is added to `faults`."""
    lines[location] = node.line
    if isinstance(node, YamlMap):
        return {key.value: _plain(value, (*location, key.value), lines, faults) for key, value in node.entries}
    if isinstance(node, YamlList):
        return [_plain(item, (*location, number), lines, faults) for number, item in enumerate(node.items)]
    if not isinstance(node, YamlScalar):
        return None
    if node.is_absent:
        faults.add(node.line, f"{_dotted(location)} has no value.", "Write one after it, or remove the key.")
    elif any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in node.value):
        faults.add(node.line, f"{_dotted(location)} has characters that cannot be shown.", "Write it anew.")
    return node.value


def _dotted(location: _Location) -> str:
    """`'engine.devices.0'`, of limited length."""
    key = ".".join(str(part) for part in location)
    return repr(key if len(key) <= SHOWN else f"{key[:SHOWN]}...")


def _explain(location: _Location, kind: str, message: str, given: object) -> tuple[str, str]:
    """What is wrong with a setting, and what to do."""
    if kind not in _UNKNOWN_KEY:
        lookalikes = explain_lookalikes(given) if isinstance(given, str) else ""
        return f"{_dotted(location)}: {message.removeprefix(_VALUE_ERROR)}.", lookalikes
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[str(part)].annotation
    near = difflib.get_close_matches(str(location[-1])[:SHOWN], _keys(section), n=1)
    suggestion = f"Did you mean '{near[0]}'?" if near else "See configs/default.yaml for every key."
    return f"unknown key {_dotted(location)}.", suggestion


def _keys(section: Any) -> list[str]:
    """The keys of a section, be it one of pydantic's or a dataclass."""
    return [field.name for field in fields(section)] if is_dataclass(section) else list(section.model_fields)
