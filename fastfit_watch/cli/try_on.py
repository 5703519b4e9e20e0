"""The `try-on` command: one picture, without daemon, folder or queue."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.cli.progress_bar import DownloadReporter
from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.errors import ConfigError, UploadError
from fastfit_watch.domain.finishing import Finishing
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.imaging.codec import open_image
from fastfit_watch.system.atomic_write import write_bytes
from fastfit_watch.system.devices import find_devices
from fastfit_watch.worker.local_engine import FastFitEngine, complete_seed, refuse_impossible_outfit
from fastfit_watch.worker.rendering import LookFiles

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class TryOnRequest:
    """What `try-on` was asked for. `options.format` follows the extension of `output`."""

    person: Path
    garments: Mapping[Category, Path]
    output: Path
    options: SamplingOptions
    bundle: str
    models: Path
    device: str
    finish: Finishing = field(default_factory=Finishing)


def try_on(request: TryOnRequest) -> None:
    """Make one picture, and print its seed, seconds and peak memory.

    Everything that can be wrong with the request is found before a model is loaded. Where a device is full, it is done
    again one rung lower on the memory ladder, never in a smaller size.

    Raises
    ------
    ConfigError : the outfit is impossible. UploadError : files that cannot be used, a line each.
    BundleError, EngineError : the picture cannot be made. StorageError : it cannot be saved.
    """
    refuse_impossible_outfit(request.garments)
    folder = request.output.parent
    if not folder.is_dir():
        raise ConfigError(f"--output {request.output}: there is no folder {folder}.", hint="Make it first.")
    files = {"person": request.person, **{slot.value: path for slot, path in request.garments.items()}}
    pictures = open_all(files)
    options = complete_seed(request.options)
    print(f"seed {options.seed}", flush=True)

    device = find_devices((request.device,))[0]
    began_s = time.monotonic()
    engine = FastFitEngine.of(EngineSetup(request.bundle, request.models, device), DownloadReporter())
    loaded_s = time.monotonic()
    look = LookFiles(request.person, request.garments)
    result, data = engine.make_file(look, pictures, options, request.finish, progress_line())
    made_s = time.monotonic() - loaded_s
    write_bytes(request.output, data)
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.seconds.items())
    print(f"{made_s:.1f} s on {device} after {loaded_s - began_s:.1f} s of loading ({stages})")
    if result.rung is not Rung.FULL:
        print(f"made on rung '{result.rung}' of the memory ladder")
    peak = result.peak_vram_bytes
    print(f"peak VRAM {peak / 2**30:.2f} GiB" if peak is not None else "peak VRAM: none, it ran on the CPU")
    print(request.output)


def open_all(files: Mapping[str, Path]) -> dict[str, Image.Image]:
    """Open every picture, or name all that cannot be used, a line each."""
    pictures: dict[str, Image.Image] = {}
    faults: list[str] = []
    for option, path in files.items():
        try:
            pictures[option] = open_image(path, Limits())
        except OSError as error:
            faults.append(f"--{option} {path}: {error.strerror or error}.")
        except UploadError as error:
            faults.append(f"--{option} {path}: {error}")
    if faults:
        raise UploadError("\n".join(faults))
    return pictures


def progress_line() -> Callable[[int, int], None] | None:
    """Count the steps on a terminal; say nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def count(step: int, steps: int) -> None:
        print(f"\rstep {step} of {steps}", end="\n" if step == steps else "", file=sys.stderr, flush=True)

    return count
