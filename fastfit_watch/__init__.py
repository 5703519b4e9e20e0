"""fastfit-watch: dress people in uploaded garments, unattended.

In Python: `from fastfit_watch import FastFitEngine`. Nothing heavy is imported before one of these names is used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastfit_watch.domain.look import SamplingOptions
    from fastfit_watch.engine.tryon import TryOnResult
    from fastfit_watch.worker.local_engine import FastFitEngine

__all__ = ["FastFitEngine", "SamplingOptions", "TryOnResult", "__version__"]

_HOMES = {
    "FastFitEngine": "fastfit_watch.worker.local_engine",
    "SamplingOptions": "fastfit_watch.domain.look",
    "TryOnResult": "fastfit_watch.engine.tryon",
}
_NOT_INSTALLED = "0+unknown"  # a version that pip would accept, for a checkout that was never installed


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used. Raises AttributeError for any other."""
    if name == "__version__":
        return _read_version()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _read_version() -> str:
    try:
        return metadata.version("fastfit-watch")
    except metadata.PackageNotFoundError:
        return _NOT_INSTALLED
