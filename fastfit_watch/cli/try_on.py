"""The `try-on` command: one picture, without daemon, folder or queue."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.domain.errors import ConfigError, OutOfMemory, UploadError
from fastfit_watch.domain.finishing import Finishing
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Category, ImageFormat, SamplingOptions, outfit_conflict
from fastfit_watch.domain.memory_ladder import Rung, ladder
from fastfit_watch.system.devices import find_devices

if TYPE_CHECKING:
    from PIL import Image

    from fastfit_watch.engine.tryon import TryOnResult

_SEEDS = 2**32
_EXTENSIONS = {".png": ImageFormat.PNG, ".jpg": ImageFormat.JPG, ".jpeg": ImageFormat.JPG, ".webp": ImageFormat.WEBP}


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


def format_of(output: Path) -> ImageFormat:
    """The format that the extension of `output` names. Raises ConfigError if it names none."""
    found = _EXTENSIONS.get(output.suffix.lower())
    if found is None:
        raise ConfigError(f"--output {output}: the extension must be one of {', '.join(_EXTENSIONS)}.")
    return found


def try_on(request: TryOnRequest) -> None:
    """Make one picture, and print its seed, seconds and peak memory.

    Everything that can be wrong with the request is found before a model is loaded. Where a device is full, it is done
    again one rung lower on the memory ladder, never in a smaller size.

    Raises
    ------
    ConfigError : the outfit is impossible. UploadError : files that cannot be used, a line each.
    BundleError, EngineError : the picture cannot be made. StorageError : it cannot be saved.
    """
    _refuse_impossible(request)
    files = {"person": request.person, **{slot.value: path for slot, path in request.garments.items()}}
    pictures = open_all(files)
    seed = secrets.randbelow(_SEEDS) if request.options.seed is None else request.options.seed
    options = replace(request.options, seed=seed)
    print(f"seed {seed}", flush=True)

    # Only now what takes seconds to import.
    from fastfit_watch.cli.local_engine import open_studio
    from fastfit_watch.engine.memory_ladder import descend
    from fastfit_watch.system.atomic_write import write_bytes

    device = find_devices((request.device,))[0]

    def attempt(rung: Rung) -> tuple[TryOnResult, bytes, float, float]:
        began_s = time.monotonic()
        local_engine = open_studio(request.bundle, request.models, device, rung=rung)
        loaded_s = time.monotonic()
        made = local_engine.make(request.person, request.garments, pictures, options, request.finish, progress_line())
        return *made, loaded_s - began_s, time.monotonic() - loaded_s

    rungs = ladder(Rung.FULL, allow_smaller=False)
    result, data, load_s, made_s = descend(rungs, attempt, _tell_shortage)
    write_bytes(request.output, data)
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.seconds.items())
    print(f"{made_s:.1f} s on {device} after {load_s:.1f} s of loading ({stages})")
    if result.rung is not rungs[0]:
        print(f"made on rung '{result.rung}' of the memory ladder")
    peak = result.peak_vram_bytes
    print(f"peak VRAM {peak / 2**30:.2f} GiB" if peak is not None else "peak VRAM: none, it ran on the CPU")
    print(request.output)


def _tell_shortage(tried: Rung, error: OutOfMemory) -> None:
    print(f"on rung '{tried}': {error.message} Trying the next.", file=sys.stderr, flush=True)


def _refuse_impossible(request: TryOnRequest) -> None:
    if not request.garments:
        raise ConfigError(f"Give at least one garment: {', '.join(f'--{category.value}' for category in Category)}.")
    conflict = outfit_conflict(request.garments)
    if conflict is not None:
        raise ConfigError(conflict, hint="Leave out --dress, or --upper and --lower.")
    folder = request.output.parent
    if not folder.is_dir():
        raise ConfigError(f"--output {request.output}: there is no folder {folder}.", hint="Make it first.")


def open_all(files: Mapping[str, Path]) -> dict[str, Image.Image]:
    """Open every picture, or name all that cannot be used, a line each."""
    from fastfit_watch.imaging.codec import open_image

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
