"""What lies on disk of a bundle: which files, whether they are whole, and the record of where they came from.

    Models/fastfit-mr-1024/
      bundle.json      written last, read by the engine
      fetched.json     the record: commits, and every file with size and SHA-256; absent after a copy by hand
      unet/ vae/ scheduler/ parser/     the files of the repositories, under the names they have there
      parser/converted/                 safetensors copies that the engine makes for itself
      .partial/        what a fetch in progress has so far, and its plan

Nothing here touches the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from fastfit_watch.bundles.catalogue import KnownBundle, Part
from fastfit_watch.domain.errors import BundleError
from fastfit_watch.system.atomic_write import make_folder, write_json
from fastfit_watch.system.folders import hash_file

RECORD = "fetched.json"
BUNDLE = "bundle.json"
PARTIAL = ".partial"
PLAN = "plan.json"
CONVERTED = "converted"
BY_HAND = "copied by hand"

_LFS_POINTER = b"version https://git-lfs"
_CHUNK_BYTES = 1 << 20
_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class WeightFile:
    """One file of a bundle.

    path : in the bundle. repository, name : where it is published, and its path there.
    sha256 : of its content; empty until it is here where the hub knows only Git's own sum, git_sha1.
    """

    path: str
    bytes: int
    sha256: str
    git_sha1: str
    repository: str
    name: str

    @property
    def key(self) -> str:
        """A name for its content."""
        return self.sha256 or f"git-{self.git_sha1}"


@dataclass(frozen=True)
class BundleManifest:
    """Which commits a bundle was fetched from, and its files."""

    bundle: str
    endpoint: str
    revisions: Mapping[str, str]
    files: tuple[WeightFile, ...]

    @property
    def revision(self) -> str:
        """All commits, short, for people and reports."""
        return "+".join(commit[:_SHOWN_DIGITS] for commit in self.revisions.values())

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)


class BundleState(StrEnum):
    """complete: can be loaded. incomplete: a fetch or a copy by hand is not finished. damaged: it was complete once."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    DAMAGED = "damaged"
    ABSENT = "absent"


@dataclass(frozen=True)
class BundleCondition:
    """How a bundle is. faults: a sentence for each file that is missing, cut off or otherwise not what it should be."""

    state: BundleState
    faults: tuple[str, ...] = ()
    record: BundleManifest | None = None


def check_sizes(root: Path, bundle: KnownBundle) -> BundleCondition:
    """Look at names and sizes only, and at the heads of files that nobody recorded: takes milliseconds."""
    record = read_record(root / RECORD)
    if record is not None:
        faults = tuple(filter(None, (compare_size(root, file) for file in record.files)))
        return BundleCondition(BundleState.DAMAGED if faults else BundleState.COMPLETE, faults, record)
    if (root / PARTIAL / PLAN).exists():
        return BundleCondition(BundleState.INCOMPLETE)
    found = locate_parts(root, bundle)
    broken = tuple(filter(None, (check_unrecorded_file(path) for path in found.values() if path is not None)))
    missing = tuple(
        f"{root / part.repository.folder} lacks {part.what} ({part.patterns[0]})."
        for part, path in found.items()
        if path is None
    )
    if broken:
        return BundleCondition(BundleState.DAMAGED, broken + missing)
    if len(missing) == len(found):
        return BundleCondition(BundleState.ABSENT)
    return BundleCondition(BundleState.INCOMPLETE if missing else BundleState.COMPLETE, missing)


def locate_parts(root: Path, bundle: KnownBundle) -> dict[Part, Path | None]:
    """Every part of a bundle, and its file on disk."""
    found: dict[Part, Path | None] = {}
    for repository in bundle.repositories:
        folder = root / repository.folder
        names = list(files_below(folder))
        for part in bundle.parts:
            if part.repository == repository:
                name = part.pick(names)
                found[part] = folder / name if name is not None else None
    return found


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, relative to it; not what is hidden or was converted by the engine."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != CONVERTED]
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(folder).as_posix()


def compare_size(root: Path, file: WeightFile) -> str | None:
    """What is wrong with a recorded file, judged by its size."""
    path = root / file.path
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return f"{path} is missing."
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}."
    if size == file.bytes:
        return None
    return f"{path} is {'cut off' if size < file.bytes else 'another file'}: {size} bytes instead of {file.bytes}."


def compare_content(root: Path, file: WeightFile, on_bytes: Callable[[int], None] = lambda count: None) -> str | None:
    """What is wrong with a recorded file, judged by all its bytes."""
    fault = compare_size(root, file)
    if fault is not None:
        return fault
    path = root / file.path
    found = hash_content(path, file, on_bytes)
    if found == (file.sha256 or file.git_sha1):
        return None
    return f"{path} is damaged or another file: its hash is {found[:_SHOWN_DIGITS]}…, not {file.key[:_SHOWN_DIGITS]}…."


def hash_content(path: Path, file: WeightFile, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """The hash of a file that can be compared with what is known of `file`: its SHA-256, else Git's sum."""
    if file.sha256:
        return hash_file(path, on_bytes)
    # Git hashes a head and the content, gitobjects(7).
    return hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes(), usedforsecurity=False).hexdigest()


def check_unrecorded_file(path: Path) -> str | None:
    """What is wrong with a file that nobody recorded, as far as its head and its end tell."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(len(_LFS_POINTER))
        stream.seek(max(0, size - 1))
        last = stream.read(1)
    if head == _LFS_POINTER:
        return f"{path} is only Git's pointer to the file: run 'git lfs pull' where you copied it from."
    is_cut = (
        size == 0
        or (path.suffix == ".safetensors" and size != _safetensors_bytes(path))
        or (path.suffix == ".pkl" and last != b".")  # a pickle's last word is STOP
        or (head.startswith(b"PK") and not zipfile.is_zipfile(path))  # torch writes zip archives
    )
    return f"{path} is cut off or damaged ({size} bytes)." if is_cut else None


def _safetensors_bytes(path: Path) -> int:
    """How long a safetensors file must be by its head (safetensors format: length, JSON table, data); -1 if unclear."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > path.stat().st_size:
                return -1
            table = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return -1


def read_record(path: Path) -> BundleManifest | None:
    """The record or plan in a file; None if there is none, or none that can be read."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(WeightFile(**entry) for entry in entries["files"])
        return BundleManifest(entries["bundle"], entries["endpoint"], dict(entries["revisions"]), files)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(path: Path, record: BundleManifest) -> None:
    """Write a record or plan, whole and durably."""
    make_folder(path.parent)
    write_json(path, asdict(record))


def write_bundle_json(root: Path, bundle: KnownBundle, record: BundleManifest | None) -> None:
    """Write `bundle.json`, the last thing a bundle lacks.

    Raises
    ------
    BundleError : the folder cannot be written to. StorageError : the disk is full.
    """
    entries = bundle.describe(record.revision if record is not None else BY_HAND)
    try:
        write_json(root / BUNDLE, entries)
    except OSError as error:
        raise BundleError(
            f"{root / BUNDLE} is missing and cannot be written: {error.strerror}.",
            hint=f"Write it as a user who may; it must hold {json.dumps(entries)}",
        ) from error
