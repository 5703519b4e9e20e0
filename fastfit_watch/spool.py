"""Uploads at rest. A claim is one rename into a private folder on the same filesystem, after a verified copy was made.

    .spool/                      0700, locked by one daemon
      ledger.db
      jobs/<job id>/
        upload/                  the folder as it came; missing if it had to stay where it was
        snapshot/                private copies of the files the job uses; all later work reads these
        receipts/                written by the worker

The steps of a claim, each durable before the next: copies, intent (ledger), rename, empty folder put back, queued
(ledger). `recover` goes on from any of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from fastfit_watch.config import Config
from fastfit_watch.errors import ConfigError, StorageError, UploadError
from fastfit_watch.failpoints import failpoint
from fastfit_watch.folders import (
    FileChanged,
    copy_file,
    hash_file,
    list_folder,
    make_private,
    open_folder,
    remove_folder,
    storage_errors,
)
from fastfit_watch.job import Job
from fastfit_watch.ledger import Ledger
from fastfit_watch.look import Look
from fastfit_watch.settle import FileMark, Fingerprint, digest_of

# The folder belongs to another user, is a mount point, or lies on another filesystem: it is copied and stays.
RENAME_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST})
# There is no such file or folder (any more), or something else under its name.
NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
CHANGED = "it changed while it was being taken"


@dataclass(frozen=True)
class Claim:
    """A complete upload about to be taken. files: name -> sha256 of the copies in the snapshot."""

    job_id: str
    name: str
    manifest: str
    looks: Sequence[Look]
    files: Mapping[str, str]
    fingerprint: Fingerprint


class Spool:
    """The private folder `.spool` in `inputs/`. Raises StorageError when the disk is full or failing."""

    def __init__(self, config: Config) -> None:
        self._inputs = config.inputs
        self._limits = config.limits
        self._lock_fd: int | None = None
        self.root = config.spool

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
                with open_folder(self.root) as root_fd:
                    if os.fstat(root_fd).st_uid != os.geteuid():
                        raise PermissionError(errno.EPERM, "it belongs to another user")
                    os.fchmod(root_fd, 0o700)
                    make_private("jobs", root_fd)
                    lock_fd = os.open(
                        "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root_fd
                    )
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
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = lock_fd

    def unlock(self) -> None:
        """Leave the spool to another process."""
        if self._lock_fd is not None:
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

    def snapshot(
        self, job_id: str, folder_fd: int, marks: Sequence[FileMark], on_file: Callable[[], None] = lambda: None
    ) -> dict[str, str]:
        """Copy these files of an open upload into the job's snapshot, durably; returns name -> sha256.

        `on_file` is called after each. Raises FileChanged if a file is being written, UploadError if one may not be
        used, StorageError if the disk has no room for the copies.
        """
        self._require_room(sum(mark.size for mark in marks))
        files: dict[str, str] = {}
        with storage_errors(f"copying {job_id!r} into the spool"):
            self.discard_snapshot(job_id)
            with open_folder(self.root / "jobs") as jobs_fd:
                make_private(job_id, jobs_fd)
            with open_folder(self.job_folder(job_id)) as job_fd:
                make_private("receipts", job_fd)
                make_private("snapshot", job_fd)
            with open_folder(self.snapshot_folder(job_id)) as snapshot_fd:
                for mark in marks:
                    failpoint("spool.copy")
                    files[mark.name] = _copy(folder_fd, mark, snapshot_fd, self._limits.picture_bytes)
                    on_file()
                os.fsync(snapshot_fd)
            failpoint("spool.copied")
        return files

    def discard_snapshot(self, job_id: str) -> None:
        """Forget the copies of an upload that turned out not to be complete."""
        remove_folder(self.snapshot_folder(job_id))

    def claim(self, ledger: Ledger, claim: Claim, folder_fd: int, now_s: float) -> Job:
        """Take a complete upload whose snapshot is made. Returns its job: queued, or waiting if the folder changed.

        Raises FileChanged if it changed before anything was recorded.
        """
        if self._changed(folder_fd, claim.fingerprint):
            raise FileChanged(claim.name)
        origin = digest_of(claim.fingerprint)
        ledger.begin_claim(claim.job_id, claim.manifest, claim.looks, claim.files, origin, now_s)
        with storage_errors(f"moving {claim.name!r} into the spool"):
            return self._finish(ledger, claim.job_id, claim.name, origin, folder_fd, now_s)

    def recover(self, ledger: Ledger, now_s: float) -> list[Job]:
        """Finish or undo every claim that was interrupted, by a crash or a full disk. Returns their jobs."""
        return [self._resume(ledger, job, origin, now_s) for job, origin in ledger.pending_claims()]

    def sweep(self, ledger: Ledger) -> None:
        """At start-up: remove what an interrupted copy left of jobs that are not claimed."""
        for folder in (self.root / "jobs").iterdir():
            job = ledger.job(folder.name)
            if (job is None or (job.claimed_s is None and not job.files)) and not (folder / "upload").exists():
                shutil.rmtree(folder)

    def remove_placeholder(self, name: str) -> None:
        """Take back the empty folder that a claim left in `inputs/`. One that is not empty stays."""
        with self._open_inputs() as inputs_fd:
            try:
                os.rmdir(name, dir_fd=inputs_fd)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EACCES, errno.EPERM):
                    raise

    def _resume(self, ledger: Ledger, job: Job, origin: str, now_s: float) -> Job:
        with storage_errors(f"moving {job.name!r} into the spool"):
            moved = (self.job_folder(job.id) / "upload").is_dir()
            if not self._is_intact(job):
                if moved:
                    self._move_back(job.name, job.id)
                return ledger.abandon_claim(job.id, "its copy in the spool was damaged; it is read again", now_s)
            if moved:
                self._put_placeholder(job.name, job.id)
                return ledger.finish_claim(job.id, now_s)
            try:
                with self._open_inputs() as inputs_fd, open_folder(job.name, inputs_fd) as folder_fd:
                    if digest_of(list_folder(folder_fd, self._limits).fingerprint) == origin:
                        return self._finish(ledger, job.id, job.name, origin, folder_fd, now_s)
            except OSError as error:
                if error.errno not in NO_FOLDER:
                    raise
            return ledger.abandon_claim(job.id, CHANGED, now_s)

    def _finish(self, ledger: Ledger, job_id: str, name: str, origin: str, folder_fd: int, now_s: float) -> Job:
        """The second half of a claim: rename, check once more, put an empty folder back, queue."""
        failpoint("spool.rename.before")
        moved = self._move_in(name, job_id)
        failpoint("spool.rename.after")
        changed = digest_of(list_folder(folder_fd, self._limits).fingerprint) != origin
        if moved:
            changed |= not os.path.samestat(os.fstat(folder_fd), (self.job_folder(job_id) / "upload").lstat())
        # Where a new folder already stands in its place, the verified copy is used and the newcomer is the next upload.
        if changed and (not moved or self._move_back(name, job_id)):
            return ledger.abandon_claim(job_id, CHANGED, now_s)
        if moved:
            self._put_placeholder(name, job_id)
        failpoint("spool.placeholder.after")
        return ledger.finish_claim(job_id, now_s)

    def _move_in(self, name: str, job_id: str) -> bool:
        """Rename the upload into the spool. False if it may not be moved, or is gone: the copy is used either way."""
        with self._open_inputs() as inputs_fd, open_folder(self.job_folder(job_id)) as job_fd:
            try:
                os.rename(name, "upload", src_dir_fd=inputs_fd, dst_dir_fd=job_fd)
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno in RENAME_REFUSED:
                    return False
                raise
            failpoint("spool.rename.sync")
            os.fsync(job_fd)
            os.fsync(inputs_fd)
        return True

    def _move_back(self, name: str, job_id: str) -> bool:
        """Undo `_move_in`. False if another folder already stands there."""
        with self._open_inputs() as inputs_fd, open_folder(self.job_folder(job_id)) as job_fd:
            try:
                os.rename("upload", name, src_dir_fd=job_fd, dst_dir_fd=inputs_fd)
            except OSError as error:
                if error.errno in (*RENAME_REFUSED, errno.ENOTDIR):
                    return False
                raise
            os.fsync(inputs_fd)
            os.fsync(job_fd)
        return True

    def _put_placeholder(self, name: str, job_id: str) -> None:
        """Put an empty folder where the upload was, with its owner and rights: the place for RETRY and CANCEL."""
        came = (self.job_folder(job_id) / "upload").lstat()
        with self._open_inputs() as inputs_fd:
            try:
                os.mkdir(name, 0o700, dir_fd=inputs_fd)
            except FileExistsError:
                return
            with open_folder(name, inputs_fd) as folder_fd:
                if os.geteuid() == 0:
                    os.fchown(folder_fd, came.st_uid, came.st_gid)
                os.fchmod(folder_fd, stat.S_IMODE(came.st_mode) | stat.S_IRWXU)
            os.fsync(inputs_fd)

    def _changed(self, folder_fd: int, fingerprint: Fingerprint) -> bool:
        return list_folder(folder_fd, self._limits).fingerprint != fingerprint

    def _is_intact(self, job: Job) -> bool:
        """Are the copies what the ledger says they are?"""
        folder = self.snapshot_folder(job.id)
        try:
            return all(hash_file(folder / name) == sha256 for name, sha256 in job.files.items())
        except FileNotFoundError:
            return False

    def _open_inputs(self) -> AbstractContextManager[int]:
        # The dot at the end: `inputs/` itself may be a symlink, that is the operator's choice.
        return open_folder(f"{self._inputs}/.")

    def _require_room(self, wanted_bytes: int) -> None:
        """Raise StorageError unless the copies leave `limits.min_free_bytes` free."""
        disk = os.statvfs(self.root)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < wanted_bytes + self._limits.min_free_bytes:
            raise StorageError(
                f"Only {free_bytes / 1e6:.0f} MB are free on the disk of {self._inputs}.",
                hint=f"Free {(wanted_bytes + self._limits.min_free_bytes - free_bytes) / 1e6:.0f} MB more; uploads"
                " are taken again by themselves.",
            )


def _copy(folder_fd: int, mark: FileMark, snapshot_fd: int, limit_bytes: int) -> str:
    try:
        return copy_file(folder_fd, mark, snapshot_fd, limit_bytes)
    except OSError as error:
        if error.errno in (*NO_FOLDER, errno.ENXIO):
            raise FileChanged(mark.name) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UploadError(f"{mark.name!r} may not be read.", hint="Make it readable: chmod a+r.") from error
        raise
