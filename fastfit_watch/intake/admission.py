"""Validates uploads for a bounded time, and claims those that are complete.

Several are gathered for one claim: the disk is waited for once for all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loguru import logger

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.job import Job, Status
from fastfit_watch.intake.claim import Claim, UploadClaimer
from fastfit_watch.intake.fingerprint import digest_of
from fastfit_watch.intake.review import WRITING, Verdict
from fastfit_watch.intake.scan import UploadEntry
from fastfit_watch.intake.upload_folder import list_folder
from fastfit_watch.intake.uploads import Upload, UploadTracker
from fastfit_watch.intake.validation import PictureInspector, UploadValidator
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.folders import FOLDER_FLAGS

# For how long one turn validates; and what is not still yet, only to say what is missing.
VALIDATE_S, PREVIEW_S = 4.0, 0.5
# Uploads gathered for one claim, and for how long.
GATHERED, GATHER_S = 64, 0.5


@dataclass(frozen=True)
class _Validated:
    """What came of a validation: a verdict, or a claim to make on the open folder."""

    upload: Upload
    verdict: Verdict | None = None
    claim: Claim | None = None
    folder_fd: int = -1


class Admission:
    """Validates and claims the uploads that were added.

    is_behind: there was more to validate than fits in one turn.
    """

    def __init__(
        self, config: Config, uploads: UploadTracker, ledger: Ledger, claimer: UploadClaimer, decoder: PictureInspector
    ) -> None:
        self._inputs, self._limits = config.inputs, config.limits
        self._uploads, self._ledger, self._claimer = uploads, ledger, claimer
        self._validator = UploadValidator(config, claimer, decoder)
        self._due: dict[str, UploadEntry] = {}
        self.is_behind = False

    def add(self, entry: UploadEntry) -> None:
        """Let one of the next turns validate this upload."""
        self._due[entry.name] = entry

    def clear(self) -> None:
        """Drop what was added."""
        self._due.clear()

    def work(self, now_s: float, clock_s: float, on_file: Callable[[], None]) -> None:
        """Take one turn, and leave the rest for the next one. `on_file` is called after each file."""
        whole: list[str] = []
        others: list[str] = []
        for name in list(self._due):
            upload = self._uploads.find(name)
            if upload is None:
                del self._due[name]
            else:
                (whole if self._uploads.is_whole(upload, clock_s) else others).append(name)
        validated: list[_Validated] = []
        try:
            for names, limit_s in ((_from_both_ends(whole), VALIDATE_S), (iter(others), PREVIEW_S)):
                self._work_through(names, limit_s, validated, now_s, clock_s, on_file)
        finally:
            _close(validated)
        self.is_behind = any(name in self._due for name in whole)

    def _work_through(
        self,
        names: Iterator[str],
        limit_s: float,
        validated: list[_Validated],
        now_s: float,
        clock_s: float,
        on_file: Callable[[], None],
    ) -> None:
        began_s = gathered_s = time.monotonic()
        for name in names:
            result = self._validate(name, self._due.pop(name), now_s, clock_s, on_file)
            validated += [result] if result is not None else []
            if len(validated) >= GATHERED or time.monotonic() - gathered_s > GATHER_S:
                self._claim(validated, now_s, clock_s)
                gathered_s = time.monotonic()
            if time.monotonic() - began_s > limit_s:
                break
        self._claim(validated, now_s, clock_s)

    def _validate(
        self, name: str, entry: UploadEntry, now_s: float, clock_s: float, on_file: Callable[[], None]
    ) -> _Validated | None:
        """Validate one upload. Nothing wrong in it may stop the others."""
        upload = self._uploads.find(name)
        if upload is None:
            return None
        try:
            folder_fd = os.open(self._inputs / entry.disk_name, FOLDER_FLAGS)
        except OSError as error:
            self._uploads.explain_unreadable(name, error, now_s)
            return None
        found = None
        try:
            listing = list_folder(folder_fd, self._limits)
            self._uploads.observe(upload, digest_of(listing.fingerprint), clock_s, arrived_whole=upload.came_whole)
            is_whole = self._uploads.is_whole(upload, clock_s)
            result = self._validator.validate(upload.job, folder_fd, listing, is_whole, on_file)
            if isinstance(result, Verdict):
                found = _Validated(upload, result)
            else:
                found = _Validated(upload, None, result, folder_fd)
        except OSError as error:
            self._uploads.explain_unreadable(name, error, now_s)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - an upload that trips us must not end the daemon at every start
            logger.exception("the upload {!r} could not be validated", name)
            reason = f"it could not be examined ({error!r}). See the daemon's log."
            found = _Validated(upload, Verdict(Status.INVALID, reason))
        finally:
            if found is None or found.claim is None:
                os.close(folder_fd)
        return found

    def _claim(self, validated: list[_Validated], now_s: float, clock_s: float) -> None:
        """Claim what is complete, and record what stands in the way of the others."""
        offers = [(each.claim, each.folder_fd) for each in validated if each.claim is not None]
        jobs = iter(self._claimer.claim_all(self._ledger, offers, now_s) if offers else ())
        with self._uploads.one_commit():
            for each in validated:
                if each.claim is not None:
                    self._note_claim(each.upload, next(jobs), now_s, clock_s)
                elif each.verdict is not None:
                    each.upload.verdict = each.verdict
                    self._uploads.apply_verdict(each.upload, each.verdict, clock_s, now_s)
        _close(validated)

    def _note_claim(self, upload: Upload, job: Job | None, now_s: float, clock_s: float) -> None:
        """Note what became of an upload that was offered; job is None if it changed before anything was recorded."""
        if job is not None and job.claimed_s is not None:
            self._uploads.remove_claimed(job)
            return
        self._claimer.discard_snapshot(upload.job.id)
        self._uploads.reconsider(upload.job.name, job or upload.job)
        if job is None:
            self._uploads.apply_verdict(upload, Verdict(Status.WAITING, WRITING), clock_s, now_s)
        else:
            self._uploads.queue_event(job)


def _from_both_ends(names: Sequence[str]) -> Iterator[str]:
    """The first, the last, the second, the last but one: who comes late does not wait for all who came before."""
    for number in range(len(names)):
        yield names[number // 2] if number % 2 == 0 else names[-1 - number // 2]


def _close(validated: list[_Validated]) -> None:
    """Close the folders that were kept open for a claim, and empty the list."""
    for each in validated:
        if each.claim is not None:
            os.close(each.folder_fd)
    validated.clear()
