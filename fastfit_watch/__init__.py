"""fastfit-watch: dress people in uploaded garments, unattended."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """Find the version only when it is asked for: reading metadata takes time that `status` does not have."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("fastfit-watch")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return "0.1.0+checkout"
