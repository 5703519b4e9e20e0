"""The private folder `.spool`: where its parts lie, who holds it, and whether there is room in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from contextlib import AbstractContextManager
from pathlib import Path

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.system.disk_errors import storage_errors
from fastfit_watch.system.folders import make_private, open_folder


class Spool:
    """The folder `.spool` in `inputs/`. Raises StorageError when the disk is full or failing.

    wanted_bytes: what must be free for the upload that could not be copied for want of room; 0 once it could.
    """

    def __init__(self, config: Config) -> None:
        self._inputs = config.inputs
        self._limits = config.limits
        self._lock_fd: int | None = None
        self.root = config.spool
        self.wanted_bytes = 0

    @property
    def ledger_path(self) -> Path:
        """Where the ledger lies."""
        return self.root / "ledger.db"

    def job_folder(self, job_id: str) -> Path:
        """Everything of one job."""
        return self.root / "jobs" / job_id

    def snapshot_folder(self, job_id: str) -> Path:
        """The verified private copies of a job's manifest and pictures."""
        return self.job_folder(job_id) / "snapshot"

    def receipts_folder(self, job_id: str) -> Path:
        """Where the worker leaves a receipt for each finished look."""
        return self.job_folder(job_id) / "receipts"

    def withheld_folder(self, job_id: str) -> Path:
        """Where the worker leaves pictures that the content filter kept back. Missing while there are none."""
        return self.job_folder(job_id) / "withheld"

    def lock(self) -> None:
        """Take the spool for this process, making it first where it is missing.

        Raises ConfigError if another daemon holds it or it cannot be made.
        """
        self.unlock()
        try:
            self._inputs.mkdir(parents=True, exist_ok=True)
            with storage_errors(f"making the spool {self.root}"):
                with self._open_inputs() as inputs_fd:
                    make_private(self.root.name, inputs_fd)
                    os.fsync(inputs_fd)
                with open_folder(self.root) as root_fd:
                    if os.fstat(root_fd).st_uid != os.geteuid():
                        raise PermissionError(errno.EPERM, "it belongs to another user")
                    os.fchmod(root_fd, 0o700)
                    make_private("jobs", root_fd)
                    lock_fd = os.open(
                        "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root_fd
                    )
                    os.fsync(root_fd)
        except OSError as error:
            raise ConfigError(
                f"The spool {self.root} cannot be used: {error.strerror}.",
                hint="Run the daemon as the user who owns it, or choose another 'inputs'.",
            ) from error
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock_fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock_fd)
            raise ConfigError(
                f"Another fastfit-watch (process {holder}) is already watching {self._inputs}.",
                hint="Stop it first, or give this one other 'inputs'.",
            ) from error
        # Only for people and commands that ask who holds it: a full disk is no reason not to start.
        with contextlib.suppress(OSError):
            os.ftruncate(lock_fd, 0)
            os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = lock_fd

    def unlock(self) -> None:
        """Leave the spool to another process."""
        if self._lock_fd is not None:
            os.ftruncate(self._lock_fd, 0)  # whoever sends a signal to the process named there must find none
            os.close(self._lock_fd)
            self._lock_fd = None

    def is_ours(self) -> bool:
        """Is the locked spool still the one at its path? Not after `inputs/` was removed or mounted anew."""
        if self._lock_fd is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._lock_fd), (self.root / "lock").stat())
        except FileNotFoundError:
            return False

    def _open_inputs(self) -> AbstractContextManager[int]:
        # The dot at the end: `inputs/` itself may be a symlink, that is the operator's choice.
        return open_folder(f"{self._inputs}/.")

    def _require_room(self, wanted_bytes: int) -> None:
        """Raise StorageError unless the copies leave `limits.min_free_bytes` free."""
        disk = os.statvfs(self.root)
        free_bytes = disk.f_bavail * disk.f_frsize
        self.wanted_bytes = 0
        if free_bytes < wanted_bytes + self._limits.min_free_bytes:
            self.wanted_bytes = wanted_bytes + self._limits.min_free_bytes
            raise StorageError(
                f"Only {free_bytes / 1e6:.0f} MB are free on the disk of {self._inputs}.",
                hint=f"Free {(wanted_bytes + self._limits.min_free_bytes - free_bytes) / 1e6:.0f} MB more; uploads"
                " are taken again by themselves.",
            )
