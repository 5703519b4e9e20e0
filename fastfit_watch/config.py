"""Settings, read once from YAML. `configs/default.yaml` lists every key with its unit and reason."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastfit_watch.errors import ConfigError

Seconds = Annotated[float, Field(gt=0, le=1e7)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Watch(_Section):
    """How uploads are found and when they count as complete."""

    events: Literal["auto", "poll"] = "auto"
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    scan_s: Seconds = 2.0
    quiet_scan_s: Seconds = 30.0
    stalled_after_s: Seconds = 600.0


class Engine(_Section):
    """The engine processes: one for each device."""

    devices: tuple[str, ...] = ("auto",)
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    load_timeout_s: Seconds = 900.0
    stall_s: Seconds = 180.0
    max_deaths: Count = 3
    max_attempts: Count = 5
    backoff_s: Seconds = 5.0
    backoff_max_s: Seconds = 300.0


class Limits(_Section):
    """What an upload may be. Uploads are not trusted."""

    files: Count = 200
    job_bytes: Count = 2 * 1024**3
    picture_bytes: Count = 40 * 1024**2
    picture_pixels: Count = 50_000_000
    manifest_bytes: Count = 256 * 1024
    decode_s: Seconds = 20.0
    decode_memory_bytes: Count = 1536 * 1024**2
    min_free_bytes: Annotated[int, Field(ge=0)] = 512 * 1024**2


class Log(_Section):
    """The daemon's own log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    rotate_bytes: Count = 10 * 1024**2
    keep_files: Count = 10


class Config(_Section):
    """Every setting of the daemon. Relative paths are relative to the working directory."""

    inputs: Path = Path("inputs")
    outputs: Path = Path("outputs")
    logs: Path = Path("logs")
    models: Path = Path("Models")
    bundle: str = "fastfit-mr-1024"
    watch: Watch = Watch()
    engine: Engine = Engine()
    limits: Limits = Limits()
    log: Log = Log()

    @property
    def spool(self) -> Path:
        """The private spool: on the filesystem of `inputs/`, so that claiming an upload is one rename."""
        return self.inputs / ".spool"


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
    if kind != "extra_forbidden":
        return f"'{key}': {message}."
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[str(part)].annotation
    near = difflib.get_close_matches(str(location[-1]), list(section.model_fields), n=1)
    suggestion = f" Did you mean '{near[0]}'?" if near else " See configs/default.yaml for every key."
    return f"unknown key '{key}'.{suggestion}"
