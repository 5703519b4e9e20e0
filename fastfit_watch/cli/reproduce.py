"""The `reproduce` command: makes a picture again from what it says of itself, and tells whether it is the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastfit_watch.cli.progress_bar import DownloadReporter
from fastfit_watch.cli.try_on import open_all, progress_line
from fastfit_watch.config.paths import Paths
from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.errors import UploadError
from fastfit_watch.domain.finishing import Finishing
from fastfit_watch.domain.look import Category
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.imaging.codec import format_of, open_image
from fastfit_watch.imaging.provenance import differences, read_options, wanted_hashes
from fastfit_watch.imaging.xmp import read_marks
from fastfit_watch.storage.spool import SpoolPaths
from fastfit_watch.system.atomic_write import write_bytes
from fastfit_watch.system.devices import find_devices
from fastfit_watch.system.exit_codes import ExitCode
from fastfit_watch.system.folders import hash_file
from fastfit_watch.worker.local_engine import FastFitEngine
from fastfit_watch.worker.rendering import LookFiles

_PERSON = "person"
_MOST_FILES = 100_000
_SIGNED = b"c2pa"


@dataclass(frozen=True)
class ReproduceRequest:
    """What `reproduce` was asked for. folders: where the inputs may be. bundle: None takes the picture's own."""

    picture: Path
    folders: tuple[Path, ...]
    models: Path
    device: str
    bundle: str | None = None
    output: Path | None = None


def reproduce(wish: ReproduceRequest) -> ExitCode:
    """Make a picture again and print whether it is the same: OK or DIFFERENT.

    Raises UploadError if the picture says too little, or an input is not at hand. BundleError, EngineError: it cannot
    be made.
    """
    marks = _read(wish.picture)
    files = find_inputs(wanted_hashes(marks), wish.folders)
    options = replace(read_options(marks), format=format_of(wish.picture))
    pictures = open_all(files)
    for slot, path in files.items():
        print(f"{slot}: {path}")

    device = find_devices((wish.device,))[0]
    rungs = (Rung(marks.get("rung", Rung.FULL.value)),)
    setup = EngineSetup(wish.bundle or marks["model"], wish.models, device, marks.get("dtype", "auto"), rungs=rungs)
    look = LookFiles(files[_PERSON], {Category(slot): path for slot, path in files.items() if slot != _PERSON})
    engine = FastFitEngine.of(setup, DownloadReporter())
    _, made = engine.make_file(look, pictures, options, Finishing(marks.get("label", "")), progress_line())
    if wish.output is not None:
        write_bytes(wish.output, made)
    code, sentences = compare(wish.picture.read_bytes(), made)
    print("\n".join(sentences))
    return code


def compare(original: bytes, made: bytes) -> tuple[ExitCode, list[str]]:
    """Are these two files one picture? The verdict, then what is different, a sentence each."""
    if original == made:
        return ExitCode.OK, ["the same: every byte"]
    said, pixels = differences(read_marks(original), read_marks(made)), _pixel_difference(original, made)
    if not pixels and not said and _SIGNED in original:
        return ExitCode.OK, ["the same: every pixel and every mark; the original is signed besides"]
    first = pixels or "every pixel is the same, but the files differ"
    return ExitCode.DIFFERENT, [f"not the same: {first}", *(f"  {sentence}" for sentence in said)]


def find_inputs(wanted: Mapping[str, str], folders: Sequence[Path]) -> dict[str, Path]:
    """The files with these hashes, by slot, wherever they are below these folders.

    Raises UploadError naming every one that is not found.
    """
    found: dict[str, Path] = {}
    for path in _files(folders):
        if len(found) == len(wanted):
            break
        try:
            digest = hash_file(path)
        except OSError:
            continue
        found |= {slot: path for slot, wish in wanted.items() if wish == digest}
    missing = [
        f"the {slot} with SHA-256 {digest} is not at hand" for slot, digest in wanted.items() if slot not in found
    ]
    if missing:
        paths = ", ".join(map(str, folders))
        raise UploadError("\n".join(f"{sentence}: looked in {paths}." for sentence in missing))
    return {slot: found[slot] for slot in wanted}


def input_folders(paths: Paths) -> tuple[Path, ...]:
    """Where inputs are found if nobody says: the spool's verified copies, then uploads that still wait."""
    return SpoolPaths(paths.inputs).jobs, paths.inputs


def _read(picture: Path) -> dict[str, str]:
    """The marks of a picture. Raises UploadError if it has none of ours."""
    try:
        marks = read_marks(picture)
    except OSError as error:
        raise UploadError(f"{picture} cannot be read: {error.strerror or error}.") from error
    slots = set(wanted_hashes(marks))
    known = {_PERSON, *(category.value for category in Category)}
    if not {"model", "seed"} <= set(marks) or _PERSON not in slots or len(slots) < 2 or not slots <= known:
        raise UploadError(
            f"{picture} does not say how it was made.", hint="Only pictures of this program that kept their XMP do."
        )
    return marks


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    """Plain files below these folders; links are not followed."""
    seen = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in sorted(names):
                path = Path(root, name)
                if not path.is_symlink() and path.is_file():
                    yield path
                    seen += 1
                    if seen >= _MOST_FILES:
                        return


def _pixel_difference(original: bytes, made: bytes) -> str:
    """How the pixels differ; empty if they do not."""
    from PIL import ImageChops

    first, second = open_image(original), open_image(made)
    if first.size != second.size:
        sizes = (f"{image.width} x {image.height}" for image in (first, second))
        return " pixels there, ".join(sizes) + " here"
    difference = ImageChops.difference(first, second)
    red, green, blue = difference.split()
    grey = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    counts = grey.histogram()
    most = max(level for level, count in enumerate(counts) if count)
    if not most:
        return ""
    share = 1 - counts[0] / sum(counts)
    return f"{share:.1%} of the pixels differ, by up to {most} of 255 levels"
