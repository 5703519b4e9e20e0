"""The limits of an upload. They stand apart from the settings so that `check` need not load the settings reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

Seconds = Annotated[float, Gt(0), Le(1e7)]
# No size or count reaches this: it keeps numbers within what the kernel and SQLite take.
_MOST = 2**62
Count = Annotated[int, Ge(1), Le(_MOST)]
Size = Annotated[int, Ge(0), Le(_MOST)]


@dataclass(frozen=True)
class Limits:
    """What an upload may be. Uploads are not trusted. The ranges are held by pydantic where settings are read."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, never changed

    files: Count = 200
    job_bytes: Count = 2 * 1024**3
    picture_bytes: Count = 40 * 1024**2
    picture_pixels: Count = 52_000_000
    manifest_bytes: Count = 256 * 1024
    decode_s: Seconds = 20.0
    decode_memory_bytes: Count = 1536 * 1024**2
    min_free_bytes: Size = 512 * 1024**2
