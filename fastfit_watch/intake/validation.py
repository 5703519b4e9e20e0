"""Validates an upload, from the cheapest question to the dearest: the first "no" is the answer."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import UploadError
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.domain.look import Look
from fastfit_watch.intake.claim import Claim, UploadClaimer
from fastfit_watch.intake.manifest import Manifest
from fastfit_watch.intake.review import WRITING, Findings, Verdict, review
from fastfit_watch.intake.upload_folder import FileChanged, Listing, is_open_for_writing


class PictureInspector(Protocol):
    """Decodes pictures of a folder, in a process that may be lost."""

    def inspect(
        self, folder: Path, names: Sequence[str], on_picture: Callable[[], None], proven: Collection[str]
    ) -> Mapping[str, object]:
        """Return what each picture is, or a sentence (str) what is wrong with it.

        on_picture: called on progress. proven: the pictures that have come whole, as a sum proves.
        """


class UploadValidator:
    """Turns a folder into a claim that may be made, or into what still stands in the way."""

    def __init__(self, config: Config, claimer: UploadClaimer, decoder: PictureInspector) -> None:
        self._limits = config.limits
        self._claimer = claimer
        self._decoder = decoder

    def validate(
        self, job: Job, folder_fd: int, listing: Listing, is_still: bool, on_file: Callable[[], None]
    ) -> Verdict | Claim:
        """Validate an open folder. The snapshot of a returned claim is made.

        is_still: the folder has not changed for long enough, or it came whole. on_file is called after each file.
        Raises StorageError when the disk is full or failing.
        """
        findings = review(folder_fd, listing, self._limits)
        manifest = findings.judge(is_still=is_still)
        if isinstance(manifest, Verdict):
            return manifest
        used = (findings.manifest_name, *manifest.files)
        writing = [name for name in used if is_open_for_writing(folder_fd, name)]
        if writing:
            return Verdict(Status.WAITING, f"{', '.join(writing)} is still open for writing", lasting=False)
        try:
            result = self._verify(job, folder_fd, listing, findings, manifest, on_file)
        except FileChanged:
            result = Verdict(Status.WAITING, WRITING, lasting=False)
        except UploadError as error:
            result = Verdict(Status.INVALID, str(error))
        if isinstance(result, Verdict):
            self._claimer.discard_snapshot(job.id)
        return result

    def _verify(
        self,
        job: Job,
        folder_fd: int,
        listing: Listing,
        findings: Findings,
        manifest: Manifest,
        on_file: Callable[[], None],
    ) -> Verdict | Claim:
        """Copy the files and judge the copies: what is judged here is what is used later."""
        used = {findings.manifest_name, *manifest.files}
        marks = [mark for mark in listing.fingerprint if mark.name in used]
        hashes = self._claimer.snapshot(job.id, folder_fd, marks, on_file)
        if hashes[findings.manifest_name] != hashlib.sha256(findings.text).hexdigest():
            raise FileChanged(findings.manifest_name)
        findings = findings.compare(hashes)
        if not findings.awaited:
            snapshot = self._claimer.spool.paths.snapshot(job.id)
            facts = self._decoder.inspect(snapshot, manifest.files, on_file, findings.proven)
            findings = findings.add_pictures(facts)
        if isinstance(verdict := findings.judge(is_still=True), Verdict):
            return verdict
        if findings.unused:
            logger.bind(job=job.id).warning("{}", findings.unused)
        looks = tuple(_with_seed(look) for look in manifest.looks)
        parts = (job.id, job.name, findings.manifest_name, looks, hashes, listing.fingerprint, manifest.priority)
        return Claim(*parts)


def _with_seed(look: Look) -> Look:
    """A look without a seed gets one now, so that it can be recorded before any work."""
    if look.options.seed is not None:
        return look
    return replace(look, options=replace(look.options, seed=secrets.randbelow(2**32)))
