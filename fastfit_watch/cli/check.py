"""The `check` command: every mistake of a job folder, found before it is uploaded. No GPU, no ledger, no change."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fastfit_watch.domain.errors import ManifestError, UploadError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.intake.decoder_pool import DecoderPool
from fastfit_watch.intake.manifest import MANIFEST_NAMES, misnamed_manifest, read_manifest
from fastfit_watch.intake.upload_folder import list_folder, read_small
from fastfit_watch.system.exit_codes import ExitCode
from fastfit_watch.system.folders import open_folder

_NO_MANIFEST = f"there is no {MANIFEST_NAMES[0]}. Write one: it names the people and the garments."


@dataclass(frozen=True)
class CheckResult:
    """What is wrong with a job folder. summary: `2 people, 2 looks: 3 pictures`; empty while that is not known."""

    faults: tuple[str, ...]
    missing: tuple[str, ...] = ()
    summary: str = ""

    @property
    def ok(self) -> bool:
        """Would the daemon take it as it is?"""
        return not self.faults and not self.missing


def check_folders(folders: Sequence[Path], limits: Limits) -> ExitCode:
    """Check job folders and print what was found: good ones on standard output, mistakes on standard error."""
    code = ExitCode.OK
    for folder in folders:
        result = check_upload(folder, limits)
        print("\n".join(describe(folder, result)), file=sys.stdout if result.ok else sys.stderr)
        if not result.ok:
            code = ExitCode.INVALID
    return code


def check_upload(folder: Path, limits: Limits) -> CheckResult:
    """Judge one folder as the daemon would, and go on after a fault to find them all.

    Checksums are left to the daemon: they guard the way there.
    """
    faults: list[str] = []
    try:
        with open_folder(folder) as folder_fd:
            listing = list_folder(folder_fd, limits)
            faults += listing.faults
            present = [name for name in MANIFEST_NAMES if name in listing.names]
            if len(present) != 1:
                faults.append(f"there are both {' and '.join(present)}. Keep one of them." if present else _NO_MANIFEST)
                other = misnamed_manifest(listing.names)
                faults += [f"{other!r} is there: rename it to {MANIFEST_NAMES[0]}."] if other and not present else []
                return CheckResult(tuple(faults))
            text = read_small(folder_fd, present[0], limits.manifest_bytes)
        manifest = read_manifest(text, present[0], listing.names)
    except OSError as error:
        return CheckResult((_unreadable(folder, error),))
    except ManifestError as error:
        return CheckResult((*faults, *map(str, error.faults)))
    except UploadError as error:
        return CheckResult((*faults, str(error)))
    # One sentence for a file is enough: what may not be there is not opened either.
    sound = [name for name in manifest.files if not any(fault.startswith(repr(name)) for fault in listing.faults)]
    faults += _picture_faults(folder, [name for name in sound if name not in manifest.missing], limits)
    missing = (f"{present[0]}:{each.line}: {each.name!r} is missing. {each.hint}" for each in manifest.missing_files)
    return CheckResult(tuple(faults), tuple(map(str.rstrip, missing)), manifest.summary)


def describe(folder: Path, result: CheckResult) -> list[str]:
    """The lines for a terminal."""
    name = str(folder) if str(folder).isprintable() else repr(str(folder))
    if result.ok:
        return [f"{name}: good. {result.summary}"]
    problems = [*result.faults, *result.missing]
    count = f"{len(problems)} mistake{'' if len(problems) == 1 else 's'}"
    return [f"{name}: {count}", *(f"  {problem}" for problem in problems)]


def _picture_faults(folder: Path, names: Sequence[str], limits: Limits) -> list[str]:
    """What is wrong inside these pictures, in their order."""
    with closing(DecoderPool(limits)) as decoder:
        found = decoder.inspect(folder, names)
    return [fact for fact in found.values() if isinstance(fact, str)]


def _unreadable(folder: Path, error: OSError) -> str:
    if folder.is_symlink():
        return "it is a symbolic link. Name the folder itself."
    if folder.exists() and not folder.is_dir():
        return "it is no folder. Name the folder that holds outfit.yaml and the pictures."
    return f"it cannot be read: {error.strerror}."
