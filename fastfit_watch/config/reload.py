"""Tells which settings take effect while the daemon runs, and which need a restart."""

from __future__ import annotations

from fastfit_watch.config.settings import Config


def live_settings(present: Config, wanted: Config) -> Config:
    """`wanted` where it may change while the daemon runs, `present` elsewhere."""
    fixed = {key: getattr(present.engine, key) for key in _FIXED_ENGINE}
    engine = wanted.engine.model_copy(update=fixed)
    watch = wanted.watch.model_copy(update={"events": present.watch.events})
    live = {key: getattr(wanted, key) for key in _LIVE}
    return present.model_copy(update={**live, "engine": engine, "watch": watch})


def fixed_changes(present: Config, wanted: Config) -> list[str]:
    """The settings that differ and need a restart."""
    fixed = [key for key in Config.model_fields if key not in (*_LIVE, "engine", "watch")]
    changed = [key for key in fixed if getattr(present, key) != getattr(wanted, key)]
    changed += [f"engine.{key}" for key in _FIXED_ENGINE if getattr(present.engine, key) != getattr(wanted.engine, key)]
    return changed + (["watch.events"] if present.watch.events != wanted.watch.events else [])


_LIVE = ("limits", "memory", "retention", "log")


_FIXED_ENGINE = (
    "devices",
    "dtype",
    "pose",
    "memory_bytes",
    "max_rss_bytes",
    "threads",
    "gpu_cache_bytes",
    "cache_bytes",
)
