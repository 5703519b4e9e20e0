"""One loaded engine for single pictures, in this very process: what `try-on` and `reproduce` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.bundles.provision import provide_bundle
from fastfit_watch.cli.progress_bar import DownloadReporter
from fastfit_watch.domain.errors import BundleError
from fastfit_watch.domain.finishing import Finishing
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.imaging.finishing import finish_picture
from fastfit_watch.imaging.provenance import picture_marks, what_runs

if TYPE_CHECKING:
    from PIL import Image

    from fastfit_watch.engine.tryon import FastFitEngine, TryOnResult


@dataclass(frozen=True)
class LocalEngine:
    """A loaded engine, and what its pictures depend on beside inputs and options."""

    engine: FastFitEngine
    versions: Mapping[str, str]

    def make(
        self,
        person: Path,
        garments: Mapping[Category, Path],
        pictures: Mapping[str, Image.Image],
        options: SamplingOptions,
        finish: Finishing,
        on_step: Callable[[int, int], None] | None = None,
    ) -> tuple[TryOnResult, bytes]:
        """Make one picture; returns the engine's result and the file.

        pictures: the opened files, under `person` and the garments' slots. Raises EngineError, OSError.
        """
        worn = {slot: pictures[slot.value] for slot in garments}
        result = self.engine.try_on(pictures["person"], worn, options, on_step)
        marks = picture_marks(person, garments, options, self.versions, result.rung.value)
        return result, finish_picture(result.image, options.format, marks, finish, person)


def open_studio(bundle: str, models: Path, device: str, dtype: str = "", rung: Rung = Rung.FULL) -> LocalEngine:
    """Load a bundle onto a device. dtype: such as bfloat16; empty lets the device choose. Raises BundleError."""
    root = provide_bundle(bundle, models, DownloadReporter())
    import torch

    from fastfit_watch.engine.bundle import Bundle
    from fastfit_watch.engine.device_name import card_name
    from fastfit_watch.engine.tryon import FastFitEngine

    chosen = getattr(torch, dtype, None) if dtype else None
    if dtype and not isinstance(chosen, torch.dtype):
        raise BundleError(f"{dtype!r} is no kind of number.")
    opened = Bundle.open(root)
    engine = FastFitEngine.load(opened, device, chosen, rung=rung)
    used = str(next(engine.unet.parameters()).dtype).removeprefix("torch.")
    return LocalEngine(engine, what_runs(opened.name, opened.revision, opened.licence, used, card_name(device)))
