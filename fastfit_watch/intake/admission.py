"""The second half of intake: examine uploads for a bounded time, and take those that are complete.

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
from fastfit_watch.intake.scan import UploadEntry
from fastfit_watch.intake.stability import observe
from fastfit_watch.intake.upload_folder import list_folder
from fastfit_watch.intake.uploads import Upload, UploadTracker
from fastfit_watch.intake.validation import WRITING, PictureInspector, UploadValidator, Verdict
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.folders import FOLDER_FLAGS

# For how long one turn examines; and what is not still yet, only to say what is missing.
EXAMINE_S, PREVIEW_S = 4.0, 0.5
# Uploads gathered for one claim, and for how long.
GATHERED, GATHER_S = 64, 0.5


@dataclass(frozen=True)
class _Found:
    """What came of an examination: a verdict, or a claim to make on the open folder."""

    upload: Upload
    verdict: Verdict | None = None
    claim: Claim | None = None
    folder_fd: int = -1


class Admission:
    """Examines what is `due` (by the names of the folders) and claims it. `on_file` is called now and then meanwhile.

    is_behind: there was more to examine than fits in one turn.
    """

    def __init__(
        self, config: Config, uploads: UploadTracker, ledger: Ledger, claimer: UploadClaimer, decoder: PictureInspector
    ) -> None:
        self._inputs, self._limits = config.inputs, config.limits
        self._uploads, self._ledger, self._claimer = uploads, ledger, claimer
        self._examiner = UploadValidator(config, claimer, decoder)
        self.due: dict[str, UploadEntry] = {}
        self.is_behind = False

    def work(self, now_s: float, clock_s: float, on_file: Callable[[], None]) -> None:
        """One turn. What is left is for the next one."""
        whole: list[str] = []
        others: list[str] = []
        for title in list(self.due):
            upload = self._uploads.known.get(title)
            if upload is None:
                del self.due[title]
            else:
                (whole if self._uploads.is_whole(upload, clock_s) else others).append(title)
        found: list[_Found] = []
        try:
            for titles, limit_s in ((_from_both_ends(whole), EXAMINE_S), (iter(others), PREVIEW_S)):
                self._examine_some(titles, limit_s, found, now_s, clock_s, on_file)
        finally:
            _close(found)
        self.is_behind = any(title in self.due for title in whole)

    def _examine_some(
        self,
        titles: Iterator[str],
        limit_s: float,
        found: list[_Found],
        now_s: float,
        clock_s: float,
        on_file: Callable[[], None],
    ) -> None:
        began_s = gathered_s = time.monotonic()
        for title in titles:
            result = self._examine(title, self.due.pop(title), now_s, clock_s, on_file)
            found += [result] if result is not None else []
            if len(found) >= GATHERED or time.monotonic() - gathered_s > GATHER_S:
                self._take(found, now_s, clock_s)
                gathered_s = time.monotonic()
            if time.monotonic() - began_s > limit_s:
                break
        self._take(found, now_s, clock_s)

    def _examine(
        self, title: str, sighting: UploadEntry, now_s: float, clock_s: float, on_file: Callable[[], None]
    ) -> _Found | None:
        """Examine one upload. Nothing wrong in it may stop the others."""
        upload = self._uploads.known[title]
        try:
            folder_fd = os.open(self._inputs / sighting.name, FOLDER_FLAGS)
        except OSError as error:
            self._uploads.explain_unreadable(title, error, now_s)
            return None
        found = None
        try:
            listing = list_folder(folder_fd, self._limits)
            upload.stillness = observe(upload.stillness, digest_of(listing.fingerprint), clock_s)
            whole = self._uploads.is_whole(upload, clock_s)
            result = self._examiner.examine(upload.job, folder_fd, listing, whole, on_file)
            found = _Found(upload, result) if isinstance(result, Verdict) else _Found(upload, None, result, folder_fd)
        except OSError as error:
            self._uploads.explain_unreadable(title, error, now_s)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - an upload that trips us must not end the daemon at every start
            logger.exception("the upload {!r} could not be examined", title)
            reason = f"it could not be examined ({error!r}). See the daemon's log."
            found = _Found(upload, Verdict(Status.INVALID, reason))
        finally:
            if found is None or found.claim is None:
                os.close(folder_fd)
        return found

    def _take(self, found: list[_Found], now_s: float, clock_s: float) -> None:
        """Claim what is complete, and say what stands in the way of the others."""
        offers = [(each.claim, each.folder_fd) for each in found if each.claim is not None]
        jobs = iter(self._claimer.claim_all(self._ledger, offers, now_s) if offers else ())
        with self._uploads.together():
            for each in found:
                if each.claim is not None:
                    self._note_claim(each.upload, next(jobs), now_s, clock_s)
                elif each.verdict is not None:
                    each.upload.verdict = each.verdict
                    self._uploads.apply_verdict(each.upload, each.verdict, clock_s, now_s)
        _close(found)

    def _note_claim(self, upload: Upload, job: Job | None, now_s: float, clock_s: float) -> None:
        """What became of an upload that was offered to the spool; None: it changed before anything was recorded."""
        if job is not None and job.claimed_s is not None:
            del self._uploads.known[upload.job.name]
            self._uploads.queue_event(job)
            return
        self._claimer.discard_snapshot(upload.job.id)
        self._uploads.folder_times.forget(upload.job.name)
        upload.verdict = None
        if job is None:
            self._uploads.apply_verdict(upload, Verdict(Status.WAITING, WRITING), clock_s, now_s)
        else:
            upload.job = job
            self._uploads.queue_event(job)


def _from_both_ends(titles: Sequence[str]) -> Iterator[str]:
    """The first, the last, the second, the last but one: who comes late does not wait for all who came before."""
    for number in range(len(titles)):
        yield titles[number // 2] if number % 2 == 0 else titles[-1 - number // 2]


def _close(found: list[_Found]) -> None:
    """Close the folders that were kept open for a claim, and forget them."""
    for each in found:
        if each.claim is not None:
            os.close(each.folder_fd)
    found.clear()
