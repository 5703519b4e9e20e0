"""What a picture depends on, as marks in it: model, options, the hashes of its inputs, and what it was made with.

Nothing here tells one job from another, so the same inputs, options and programs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import fastfit_watch
from fastfit_watch.domain.errors import UploadError
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.system.folders import hash_file

_VERSIONS_OF = ("torch", "diffusers", "numpy", "pillow")
_VERSION, _HASH = "version_", "_sha256"
_PLACES = ("dtype", "device")
_LICENCE = "licence"  # of the weights: it goes into reports, and decides nothing about a picture's bytes


def what_runs(bundle: str, revision: str, licence: str, dtype: str, device: str) -> dict[str, str]:
    """All that the bytes depend on beside inputs and options, as reports and marks name it.

    device: what the device is (`NVIDIA H200`, `cpu`), not which of several.
    """
    versions = {"fastfit-watch": fastfit_watch.__version__}
    versions |= {name: metadata.version(name) for name in _VERSIONS_OF}
    return {**versions, "bundle": f"{bundle} {revision}", _LICENCE: licence, "dtype": dtype, "device": device}


def picture_marks(
    person: Path, garments: Mapping[Category, Path], options: SamplingOptions, versions: Mapping[str, str], rung: str
) -> dict[str, str]:
    """The marks of one picture: `what_made` it, and the hashes of its inputs. Raises OSError."""
    hashes = {f"person{_HASH}": hash_file(person)}
    hashes |= {f"{category.value}{_HASH}": hash_file(path) for category, path in garments.items()}
    return hashes | what_made(options, versions, rung)


def what_made(options: SamplingOptions, versions: Mapping[str, str], rung: str) -> dict[str, str]:
    """Model, options and programs of a picture. versions: from `what_runs`. rung: of the memory ladder."""
    model, _, revision = versions.get("bundle", "").partition(" ")
    marks = {"model": model, "revision": revision, "rung": rung}
    marks |= {name: str(value) for name, value in options.to_dict().items() if value is not None}
    marks |= {name: versions[name] for name in _PLACES if name in versions}
    programs = {name: version for name, version in versions.items() if name not in ("bundle", _LICENCE, *_PLACES)}
    return marks | {_VERSION + name.replace("-", "_"): version for name, version in programs.items()}


def read_options(marks: Mapping[str, str]) -> SamplingOptions:
    """Return the options that a picture was made with. Raises UploadError if its marks do not hold them."""
    try:
        return SamplingOptions.from_dict({"seed": 0, **marks})
    except ValueError as error:
        raise UploadError(f"The marks of the picture are not ours: {error}.") from error


def wanted_hashes(marks: Mapping[str, str]) -> dict[str, str]:
    """The inputs of a picture: `person` and the garments' slots, each with its SHA-256."""
    return {name.removesuffix(_HASH): value for name, value in marks.items() if name.endswith(_HASH)}


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """What two pictures say differently of themselves, a sentence each."""
    names = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    return [f"{_title(name)}: {first.get(name, 'unknown')} there, {second.get(name, 'unknown')} here" for name in names]


def _title(name: str) -> str:
    return name.removeprefix(_VERSION).replace("_", "-") if name.startswith(_VERSION) else name
