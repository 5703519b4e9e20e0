"""The `check` command: every mistake of a job folder, found before it is uploaded. No GPU, no ledger, no change."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.text import can_be_shown
from fastfit_watch.intake.decoder_pool import DecoderPool
from fastfit_watch.intake.manifest import Manifest
from fastfit_watch.intake.review import review
from fastfit_watch.intake.upload_folder import Listing, hash_upload_file, list_folder
from fastfit_watch.system.exit_codes import ExitCode
from fastfit_watch.system.folders import open_folder


@dataclass(frozen=True)
class CheckResult:
    """What is wrong with a job folder.

    summary: `2 people, 2 looks: 3 pictures`; empty while that is not known. unused: a sentence on pictures that no look
    uses, which is no mistake.
    """

    problems: tuple[str, ...]
    summary: str = ""
    unused: str = ""

    @property
    def ok(self) -> bool:
        """Would the daemon take it as it is?"""
        return not self.problems


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
    """Judge one folder as the daemon would, and go on after a fault to find them all."""
    try:
        with open_folder(folder) as folder_fd:
            listing = list_folder(folder_fd, limits)
            findings = review(folder_fd, listing, limits)
            manifest = findings.manifest
            if manifest is None:
                return CheckResult(findings.problems)
            readable = [name for name in manifest.files if _is_readable(name, manifest, listing)]
            if findings.sums:
                used = (findings.manifest_name, *readable)
                findings = findings.compare({name: hash_upload_file(folder_fd, name) for name in used})
    except OSError as error:
        return CheckResult((_unreadable(folder, error),))
    with closing(DecoderPool(limits)) as decoder:
        findings = findings.add_pictures(decoder.inspect(folder, readable, proven=findings.proven))
    return CheckResult(findings.problems, manifest.summary, findings.unused)


def describe(folder: Path, result: CheckResult) -> list[str]:
    """The lines for a terminal."""
    name = str(folder) if can_be_shown(str(folder)) else repr(str(folder))
    unused = [f"  note: {result.unused}"] if result.unused else []
    if result.ok:
        return [f"{name}: good. {result.summary}", *unused]
    count = f"{len(result.problems)} mistake{'' if len(result.problems) == 1 else 's'}"
    return [f"{name}: {count}", *(f"  {problem}" for problem in result.problems), *unused]


def _is_readable(name: str, manifest: Manifest, listing: Listing) -> bool:
    """Is the file there, and one that may be opened? One sentence for a file is enough."""
    return name not in manifest.missing and name not in listing.unusable


def _unreadable(folder: Path, error: OSError) -> str:
    if folder.is_symlink():
        return "it is a symbolic link. Name the folder itself."
    if folder.exists() and not folder.is_dir():
        return "it is no folder. Name the folder that holds outfit.yaml and the pictures."
    return f"it cannot be read: {error.strerror}."
