"""The private folder `.spool`: where everything lies in it, which daemon holds it, and whether it has space."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.system.atomic_write import sync_folder
from fastfit_watch.system.disk_errors import storage_errors
from fastfit_watch.system.folder_lock import FolderLock, FolderTaken
from fastfit_watch.system.folders import make_private, open_folder, remove_folder

SPOOL, LOCK, JOBS = ".spool", "lock", "jobs"
OUTPUTS_LOCK = ".lock"
UPLOAD, SNAPSHOT, RECEIPTS, SET_ASIDE = "upload", "snapshot", "receipts", "set-aside"


@dataclass(frozen=True)
class SpoolPaths:
    """Where everything lies in the spool of `inputs`. It is on the same filesystem, so that a claim is one rename.

    .spool/                      0700, locked by one daemon
      lock
      ledger.db
      progress.json              how far the looks in hand are, for `status`
      jobs/<job id>/
        upload/                  the folder as it came; missing if it had to stay where it was
        snapshot/                private copies of the files the job uses; all later work reads these
        receipts/                one file for each finished look, written by the worker
        withheld/                pictures that the content filter withheld, with their receipts
      set-aside/                 uploads found in the place of a new job: of jobs that the ledger does not know
    """

    inputs: Path

    @property
    def root(self) -> Path:
        """Return the private folder itself."""
        return self.inputs / SPOOL

    @property
    def ledger(self) -> Path:
        """Return the file that records what became of every job."""
        return self.root / "ledger.db"

    @property
    def lock(self) -> Path:
        """Return the file that the daemon holds locked; it contains the daemon's process id."""
        return self.root / LOCK

    @property
    def progress(self) -> Path:
        """Return the file in which the daemon records how far the looks in hand are."""
        return self.root / "progress.json"

    @property
    def jobs(self) -> Path:
        """Return the folder that holds one folder for each job."""
        return self.root / JOBS

    def job(self, job_id: str) -> Path:
        """Return the folder of one job."""
        return self.jobs / job_id

    def upload(self, job_id: str) -> Path:
        """Return the uploaded folder of a claimed job."""
        return self.job(job_id) / UPLOAD

    def snapshot(self, job_id: str) -> Path:
        """Return the folder with the verified private copies of a job's manifest and pictures."""
        return self.job(job_id) / SNAPSHOT

    def receipts(self, job_id: str) -> Path:
        """Return the folder in which the worker leaves a receipt for each finished look."""
        return self.job(job_id) / RECEIPTS

    def receipt(self, job_id: str, key: str) -> Path:
        """Return the receipt of one finished look."""
        return self.receipts(job_id) / f"{key}.json"

    def withheld(self, job_id: str) -> Path:
        """Return the folder with pictures that the content filter withheld. Missing while there are none."""
        return self.job(job_id) / "withheld"


class Spool:
    """The spool of one daemon. Raises StorageError when the disk is full or failing.

    wanted_bytes: what must be free for the upload that could not be copied for want of space; 0 once it could.
    """

    def __init__(self, paths: SpoolPaths, limits: Limits) -> None:
        self.paths = paths
        self._limits = limits
        self._lock = FolderLock(paths.root, LOCK)
        self.wanted_bytes = 0

    def lock(self) -> None:
        """Take the spool for this process, making it first where it is missing.

        Raises ConfigError if another daemon holds it or it cannot be made.
        """
        self.unlock()
        inputs, root = self.paths.inputs, self.paths.root
        try:
            inputs.mkdir(parents=True, exist_ok=True)
            with storage_errors(f"making the spool {root}"):
                with self.open_inputs() as inputs_fd:
                    make_private(root.name, inputs_fd)
                    os.fsync(inputs_fd)
                with open_folder(root) as root_fd:
                    if os.fstat(root_fd).st_uid != os.geteuid():
                        raise PermissionError(errno.EPERM, "it belongs to another user")
                    os.fchmod(root_fd, 0o700)
                    make_private(JOBS, root_fd)
                    os.fsync(root_fd)
                self._lock.take()
        except FolderTaken as error:
            raise ConfigError(
                f"Another fastfit-watch (process {error.holder}) is already watching {inputs}.",
                hint="Stop it first, or give this one other 'inputs'.",
            ) from error
        except OSError as error:
            raise ConfigError(
                f"The spool {root} cannot be used: {error.strerror}.",
                hint="Run the daemon as the user who owns it, or choose another 'inputs'.",
            ) from error

    def unlock(self) -> None:
        """Leave the spool to another process."""
        self._lock.release()

    def is_ours(self) -> bool:
        """Is the locked spool still the one at its path? Not after `inputs/` was removed or mounted anew."""
        return self._lock.is_held()

    def open_inputs(self) -> AbstractContextManager[int]:
        """Open the folder of uploads, and close it at the end of the block."""
        # The dot at the end: `inputs/` itself may be a symlink, that is the operator's choice.
        return open_folder(f"{self.paths.inputs}/.")

    def clear_place(self, job_id: str) -> Path | None:
        """Remove what a former job of this id left where a new one is claimed: copies, receipts, withheld pictures.

        A former upload is never removed: it is moved aside, with all beside it. Returns where it is then.
        """
        if not self.paths.upload(job_id).exists():
            for folder in (self.paths.snapshot(job_id), self.paths.receipts(job_id), self.paths.withheld(job_id)):
                remove_folder(folder)
            return None
        aside = self.paths.root / SET_ASIDE / f"{job_id[:60]}.{secrets.token_hex(4)}"
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        self.paths.job(job_id).rename(aside)
        for folder in (aside.parent, self.paths.jobs, self.paths.root):
            sync_folder(folder)
        return aside

    def require_space(self, wanted_bytes: int) -> None:
        """Raise StorageError unless the copies leave `limits.min_free_bytes` free."""
        disk = os.statvfs(self.paths.root)
        free_bytes = disk.f_bavail * disk.f_frsize
        self.wanted_bytes = 0
        if free_bytes < wanted_bytes + self._limits.min_free_bytes:
            self.wanted_bytes = wanted_bytes + self._limits.min_free_bytes
            raise StorageError(
                f"Only {free_bytes / 1e6:.0f} MB are free on the disk of {self.paths.inputs}.",
                hint=f"Free {(wanted_bytes + self._limits.min_free_bytes - free_bytes) / 1e6:.0f} MB more; uploads"
                " are taken again by themselves.",
            )


class OutputsLock:
    """Holds the folder of results for one daemon: two with different inputs would overwrite each other's pictures."""

    def __init__(self, outputs: Path) -> None:
        self._outputs = outputs
        self._lock = FolderLock(outputs.resolve(), OUTPUTS_LOCK)

    def take(self) -> None:
        """Hold the folder, which must exist. Raises ConfigError if another daemon does, or it cannot be opened."""
        try:
            self._lock.take()
        except FolderTaken as error:
            raise ConfigError(
                f"Another fastfit-watch (process {error.holder}) already writes into {self._outputs}.",
                hint="Stop it first, or give this one other 'outputs'.",
            ) from error
        except OSError as error:
            raise ConfigError(
                f"The folder {self._outputs} cannot be locked: {error.strerror}.",
                hint="Run the daemon as the user who owns it, or choose another 'outputs'.",
            ) from error

    def release(self) -> None:
        """Leave the folder to another daemon."""
        self._lock.release()
