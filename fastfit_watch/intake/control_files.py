"""Carries out the requests of people who have no shell: files RETRY and CANCEL in the folder of an upload."""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.job import Job
from fastfit_watch.intake.scan import UploadEntry
from fastfit_watch.intake.upload_folder import ControlFile, Listing, remove_control_file
from fastfit_watch.intake.uploads import UploadTracker
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.system.folders import open_folder


class ControlFiles:
    """Carries out each request once, and removes its file where the folder lets us."""

    def __init__(self, inputs: Path, ledger: Ledger, uploads: UploadTracker) -> None:
        self._inputs, self._ledger, self._uploads = inputs, ledger, uploads

    def apply(self, entry: UploadEntry, listing: Listing, now_s: float) -> bool:
        """Carry out what the control files of one folder ask for. Returns whether it is a claim's empty folder now."""
        is_placeholder = False
        for control_file in listing.control_files:
            job = self._ledger.newest_job_named(entry.name)
            if job is None or self._ledger.note(_note_key(entry, control_file)) == control_file.identity:
                continue
            self._change(job, entry, control_file, now_s)
            if listing.is_empty and job.claimed_s is not None:
                # Once the file is removed; the folder of a job that is done by now would pass for an upload.
                self._ledger.retention.take_placeholder(job.id, entry.stamp[0])
                is_placeholder = True
            self._remove(entry, control_file, now_s)
        return is_placeholder

    def _change(self, job: Job, entry: UploadEntry, control_file: ControlFile, now_s: float) -> None:
        log = logger.bind(job=job.id)
        requests = self._ledger.requests
        act = requests.retry if control_file.request == "RETRY" else requests.cancel
        try:
            changed = act(job.id, now_s)
        except ConfigError as error:
            log.info("{} in the folder {!r} has no effect: {}", control_file.name, entry.name, error)
            return
        log.info("{} in the folder {!r} is carried out", control_file.name, entry.name)
        self._uploads.reconsider(entry.name, changed)
        self._uploads.queue_event(changed)
        self._uploads.publish_events()

    def _remove(self, entry: UploadEntry, control_file: ControlFile, now_s: float) -> None:
        try:
            with open_folder(self._inputs / entry.disk_name) as folder_fd:
                removed = remove_control_file(folder_fd, control_file)
        except OSError as error:
            self._uploads.explain_unreadable(entry.name, error, now_s)
            return
        if not removed:
            # The folder is another user's: remember this very file, so that its request is carried out once.
            self._ledger.put_note(_note_key(entry, control_file), control_file.identity)


def _note_key(entry: UploadEntry, control_file: ControlFile) -> str:
    return f"order:{entry.name}:{control_file.name}"
