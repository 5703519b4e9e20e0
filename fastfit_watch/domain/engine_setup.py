"""What an engine is made of, as records that travel between processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastfit_watch.domain.memory_ladder import Rung, ladder


@dataclass(frozen=True)
class FilterSetup:
    """A content filter. model: its name or path. labels: those of its labels that are withheld, from `threshold` on.

    device: "cpu", or "gpu" for the engine's own device.
    """

    model: str
    labels: tuple[str, ...]
    threshold: float
    device: str


@dataclass(frozen=True)
class EngineSetup:
    """What an engine is made of.

    bundle: `mini`, a name of the catalogue or of a directory in `models`, or a path. device: one device, such as `cpu`
    or `cuda:0`. dtype: of UNet and VAE, such as `bfloat16`; `auto` lets the device choose. threads: of torch on the
    CPU; 0 leaves the number to torch. pose: where DWPose runs, `cpu` or `gpu`. densepose: `builtin` or `detectron2`.
    cache_bytes: most that is kept of earlier looks on a GPU, and in the machine's memory. memory_bytes: most of a GPU's
    memory that may be used; 0 is all of it. rungs: of the memory ladder, to be tried in this order. content_filter:
    judges every result; None for none.
    """

    bundle: str
    models: Path
    device: str
    dtype: str = "auto"
    threads: int = 0
    pose: str = "cpu"
    densepose: str = "builtin"
    cache_bytes: tuple[int, int] = (8 * 2**30, 2**30)
    memory_bytes: int = 0
    rungs: tuple[Rung, ...] = ladder(Rung.FULL, allow_smaller=False)
    content_filter: FilterSetup | None = None
