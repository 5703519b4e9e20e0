"""Recognises the folders in `inputs/` that are no new uploads: a claim left them empty, or whole where it copied."""

from __future__ import annotations

from collections.abc import Collection

from fastfit_watch.domain.job import Status
from fastfit_watch.intake.fingerprint import digest_of
from fastfit_watch.intake.scan import UploadEntry
from fastfit_watch.intake.upload_folder import Listing
from fastfit_watch.storage.ledger import Ledger


class ClaimedFolders:
    """Asks the ledger, and remembers the folders that were copied because they could not be moved."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._copied: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        """Was the folder of this name copied?"""
        return name in self._copied

    def __len__(self) -> int:
        """How many folders were copied."""
        return len(self._copied)

    def recognise(self, entry: UploadEntry, listing: Listing) -> bool:
        """Did a claim leave this folder as it is?"""
        if listing.is_empty and self._is_placeholder(entry, listing):
            return True
        digest = digest_of(listing.fingerprint)
        if self._copied.get(entry.name) == digest:
            return True
        if self._ledger.was_claimed_by_copy(entry.name, digest):
            self._copied[entry.name] = digest
            return True
        return False

    def keep_only(self, names: Collection[str]) -> None:
        """Drop the folders that are gone."""
        self._copied = {name: digest for name, digest in self._copied.items() if name in names}

    def _is_placeholder(self, entry: UploadEntry, listing: Listing) -> bool:
        """Did a claim leave this empty folder? It goes when its job is done, and stays for RETRY otherwise."""
        job = self._ledger.newest_job_named(entry.name)
        if job is None or job.claimed_s is None:
            return False
        if job.status is not Status.DONE or listing.control_files or listing.has_litter:
            # Someone may have tidied up, and made the folder again to put a control file in it; or a file manager has
            # opened the folder, and left a file in it that keeps it from being removed.
            return True
        return self._ledger.retention.is_placeholder(entry.name, entry.stamp[0])
