"""Settings, read once from YAML. `configs/default.yaml` lists every key with its unit and reason."""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastfit_watch.config.paths import SPOOL, Paths
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.limits import Count, Limits, Seconds
from fastfit_watch.domain.memory_ladder import Rung, ladder
from fastfit_watch.imaging.content_credentials import SigningIdentity
from fastfit_watch.imaging.finishing import Finishing

EventName = Literal["done", "failed", "cancelled"]

# As `retention.seconds_of` reads it.
Duration = Annotated[str, Field(pattern=r"^(forever|\d{1,5}(min|h|d|w))$")]


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
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    gpu_cache_bytes: Annotated[int, Field(ge=0)] = 8 * 1024**3
    cache_bytes: Annotated[int, Field(ge=0)] = 1024**3
    load_timeout_s: Seconds = 900.0
    stall_s: Seconds = 180.0
    max_rss_bytes: Annotated[int, Field(ge=0)] = 0
    max_deaths: Count = 3
    max_attempts: Count = 5
    backoff_s: Seconds = 5.0
    backoff_max_s: Seconds = 300.0


class MemorySettings(_Section):
    """The memory ladder: what is done when a device is too small. See `rungs.py`."""

    start: Rung = Rung.FULL
    allow_smaller: bool = False
    remember_s: Seconds = 86400.0

    @model_validator(mode="after")
    def _refuse_an_empty_ladder(self) -> MemorySettings:
        if not ladder(self.start, allow_smaller=self.allow_smaller):
            raise ValueError("'start: smaller' needs 'allow_smaller: true'")
        return self


class ContentFilterSettings(_Section):
    """A classifier that looks at every result. Off while `model` is empty."""

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
    """What every result bears beside the XMP packet that it always has."""

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
        """The same, as the engine process takes it."""
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
    listen: Annotated[str, Field(pattern=r"^((127\.[0-9.]+|localhost|\[::1\]):[0-9]{1,5})?$")] = ""
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

    @property
    def spool(self) -> Path:
        """The private spool: on the filesystem of `inputs/`, so that claiming an upload is one rename."""
        return self.inputs / SPOOL


_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def load_config(path: Path | None, overrides: dict[str, Any] | None = None) -> Config:
    """Read settings from a YAML file (None: the defaults), then apply command-line overrides.

    Raises ConfigError naming every wrong key, with the nearest known one as a suggestion.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid YAML: {error}.") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"{path} must hold keys and values, such as 'bundle: mini'.")
        settings = loaded or {}
    settings.update(overrides or {})
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error


def _explain(error: ValidationError, path: Path | None) -> str:
    """One sentence per wrong setting."""
    place = str(path) if path else "command line"
    return "; ".join(f"{place}: {_sentence(fault['loc'], fault['type'], fault['msg'])}" for fault in error.errors())


def _sentence(location: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ".".join(str(part) for part in location)
    if kind not in _UNKNOWN_KEY:
        return f"'{key}': {message}."
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[str(part)].annotation
    near = difflib.get_close_matches(str(location[-1]), _keys(section), n=1)
    suggestion = f" Did you mean '{near[0]}'?" if near else " See configs/default.yaml for every key."
    return f"unknown key '{key}'.{suggestion}"


def _keys(section: Any) -> list[str]:
    """The keys of a section, be it one of pydantic's or a dataclass."""
    return [field.name for field in fields(section)] if is_dataclass(section) else list(section.model_fields)
