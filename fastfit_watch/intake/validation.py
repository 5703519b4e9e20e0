"""Is this upload complete and sound? From the cheapest question to the dearest; the first "no" is the answer."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import UploadError
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.domain.look import Look
from fastfit_watch.intake.checksums import mismatched_files, read_sums
from fastfit_watch.intake.claim import Claim, UploadClaimer
from fastfit_watch.intake.manifest import MANIFEST_NAMES, Manifest, misnamed_manifest, read_manifest
from fastfit_watch.intake.upload_folder import FileChanged, Listing, is_open_for_writing, read_small

READY = "READY"
SUMS = "SHA256SUMS"
# How clients name a file they have not finished (WinSCP and others).
PARTS = (".filepart", ".part")
WRITING = "still being written"
NAMES_SHOWN = 5


class PictureInspector(Protocol):
    """Decodes pictures of a folder, in a process that may be lost."""

    def inspect(self, folder: Path, names: Sequence[str], on_picture: Callable[[], None]) -> Mapping[str, object]:
        """Return what each picture is, or a sentence (str) what is wrong with it. on_picture: called on progress."""


@dataclass(frozen=True)
class Verdict:
    """What is to be said of an upload.

    lasting: only a change of the folder can alter it. until_still: that, or that the folder has been still for long
    enough.
    """

    status: Status
    reason: str
    lasting: bool = True
    until_still: bool = False


NOT_STILL = Verdict(Status.WAITING, WRITING, lasting=False, until_still=True)


class UploadValidator:
    """Turns a folder into a claim that may be made, or into what still stands in the way."""

    def __init__(self, config: Config, claimer: UploadClaimer, decoder: PictureInspector) -> None:
        self._limits = config.limits
        self._claimer = claimer
        self._decoder = decoder

    def examine(
        self, job: Job, folder_fd: int, listing: Listing, still: bool, on_file: Callable[[], None]
    ) -> Verdict | Claim:
        """Examine an open folder. The snapshot of a returned claim is made.

        still: the folder has not changed for long enough, or it came whole. on_file is called after each file.
        Raises StorageError when the disk is full or failing.
        """
        if listing.faults:
            return Verdict(Status.INVALID, " ".join(listing.faults))
        present = [each for each in MANIFEST_NAMES if each in listing.names]
        if not present:
            other = misnamed_manifest(listing.names)
            hint = f": {other!r} is there; rename it" if other else ""
            return Verdict(Status.WAITING, f"no {MANIFEST_NAMES[0]} yet{hint}")
        if len(present) > 1:
            return Verdict(Status.INVALID, f"there are both {' and '.join(present)}. Keep one of them.")
        whole = still or READY in listing.names
        try:
            text = read_small(folder_fd, present[0], self._limits.manifest_bytes)
            manifest = read_manifest(text, present[0], listing.names)
        except UploadError as error:
            # Half a manifest is no fault as long as the other half may come.
            return Verdict(Status.INVALID, str(error)) if whole else NOT_STILL
        if manifest.missing:
            hints = [f"{present[0]}:{file.line}: {file.hint}" for file in manifest.missing_files if file.hint]
            hint = f" ({' '.join(hints[:NAMES_SHOWN])})" if hints else ""
            return Verdict(Status.WAITING, f"missing {_some(manifest.missing)}{hint}")
        parts = [each for each in listing.names if each.endswith(PARTS)]
        if parts:
            return Verdict(Status.WAITING, f"{_some(parts)} is not uploaded to its end yet")
        if not whole:
            return NOT_STILL
        wanted = (present[0], *manifest.files)
        writing = [each for each in wanted if is_open_for_writing(folder_fd, each)]
        if writing:
            return Verdict(Status.WAITING, f"{_some(writing)} is still open for writing", lasting=False)
        try:
            return self._verify(job, folder_fd, listing, present[0], text, manifest, on_file)
        except FileChanged:
            self._claimer.discard_snapshot(job.id)
            return Verdict(Status.WAITING, WRITING, lasting=False)
        except UploadError as error:
            self._claimer.discard_snapshot(job.id)
            return Verdict(Status.INVALID, str(error))

    def _verify(
        self,
        job: Job,
        folder_fd: int,
        listing: Listing,
        manifest_name: str,
        text: bytes,
        manifest: Manifest,
        on_file: Callable[[], None],
    ) -> Verdict | Claim:
        """Copy the files and judge the copies: what is judged here is what is used later."""
        wanted = {manifest_name, *manifest.files}
        marks = [mark for mark in listing.fingerprint if mark.name in wanted]
        files = self._claimer.snapshot(job.id, folder_fd, marks, on_file)
        if files[manifest_name] != hashlib.sha256(text).hexdigest():
            raise FileChanged(manifest_name)
        verdict = self._compare_sums(folder_fd, listing, files) or self._look_at_pictures(job, manifest, on_file)
        if verdict is not None:
            self._claimer.discard_snapshot(job.id)
            return verdict
        looks = tuple(_with_seed(look) for look in manifest.looks)
        return Claim(job.id, job.name, manifest_name, looks, files, listing.fingerprint, manifest.priority)

    def _compare_sums(self, folder_fd: int, listing: Listing, files: Mapping[str, str]) -> Verdict | None:
        if SUMS not in listing.names:
            return None
        text = read_small(folder_fd, SUMS, self._limits.manifest_bytes)
        unlike = mismatched_files(read_sums(text.decode("utf-8", "replace")), files)
        if not unlike:
            return None
        return Verdict(Status.WAITING, f"{_some(unlike)} does not match {SUMS} yet")

    def _look_at_pictures(self, job: Job, manifest: Manifest, on_file: Callable[[], None]) -> Verdict | None:
        """All faults of all pictures. A picture that only ends early may still be completed."""
        found = self._decoder.inspect(self._claimer.spool.paths.snapshot(job.id), manifest.files, on_file)
        faults = [each for each in found.values() if isinstance(each, str)]
        if not faults:
            return None
        truncated = all("ends early" in fault for fault in faults)
        return Verdict(Status.WAITING if truncated else Status.INVALID, " ".join(faults))


def _with_seed(look: Look) -> Look:
    """A look without a seed gets one now, so that it can be recorded before any work."""
    if look.options.seed is not None:
        return look
    return replace(look, options=replace(look.options, seed=secrets.randbelow(2**32)))


def _some(names: Sequence[str]) -> str:
    """The first few names, in one line."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
