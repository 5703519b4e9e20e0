"""Uploads at rest. A claim is one rename into a private folder on the same filesystem, after a verified copy was made.

The steps of a claim, each durable before the next: copies, intent (ledger), rename, empty folder put back, queued
(ledger). `recover` goes on from any of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from fastfit_watch.domain.errors import UploadError
from fastfit_watch.domain.job import ClaimIntent, Job, Priority
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Look
from fastfit_watch.intake.fingerprint import FileMark, Fingerprint, digest_of
from fastfit_watch.intake.upload_folder import FileChanged, copy_file, list_folder
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import RECEIPTS, SNAPSHOT, UPLOAD, Spool
from fastfit_watch.system.disk_errors import storage_errors
from fastfit_watch.system.failpoints import failpoint
from fastfit_watch.system.folders import FOLDER_FLAGS, hash_file, make_private, open_folder, remove_folder
from fastfit_watch.system.fsync_batch import FsyncBatch

# The folder belongs to another user, is a mount point, or lies on another filesystem: it is copied and stays.
RENAME_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST})
# There is no such file or folder (any more), or something else under its name.
NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
CHANGED = "it changed while it was being taken"
_SWEPT = 500  # folders looked up in the ledger at once


@dataclass(frozen=True)
class Claim:
    """A complete upload about to be taken. files: name -> sha256 of the copies in the snapshot."""

    job_id: str
    name: str
    manifest: str
    looks: Sequence[Look]
    files: Mapping[str, str]
    fingerprint: Fingerprint
    priority: Priority = Priority.NORMAL

    @property
    def origin(self) -> str:
        """To know this very content again."""
        return digest_of(self.fingerprint)


@dataclass(frozen=True)
class _Begun:
    """A claim whose intent is in the ledger, and the open folder of its upload."""

    job_id: str
    name: str
    origin: str
    folder_fd: int


class UploadClaimer:
    """Takes uploads into the spool. Raises StorageError when the disk is full or failing."""

    def __init__(self, spool: Spool, limits: Limits) -> None:
        self.spool = spool
        self._paths, self._limits = spool.paths, limits
        self._batch = FsyncBatch()

    def snapshot(
        self, job_id: str, folder_fd: int, marks: Sequence[FileMark], on_file: Callable[[], None] = lambda: None
    ) -> dict[str, str]:
        """Copy these files of an open upload into the job's snapshot; returns name -> sha256. `claim` makes it durable.

        `on_file` is called after each. Raises FileChanged if a file is being written, UploadError if one may not be
        used, StorageError if the disk has no room for the copies.
        """
        self.spool.require_space(sum(mark.size for mark in marks))
        files: dict[str, str] = {}
        with storage_errors(f"copying {job_id!r} into the spool"):
            if (aside := self.spool.clear_place(job_id)) is not None:
                logger.bind(job=job_id).warning(
                    "an upload of a job that the ledger does not know was moved to {}", aside
                )
            with open_folder(self._paths.jobs) as jobs_fd:
                make_private(job_id, jobs_fd)
                self._batch.add(os.dup(jobs_fd))
            with open_folder(self._paths.job(job_id)) as job_fd:
                make_private(RECEIPTS, job_fd)
                make_private(SNAPSHOT, job_fd)
                self._batch.add(os.dup(job_fd))
            with open_folder(self._paths.snapshot(job_id)) as snapshot_fd:
                for mark in marks:
                    failpoint("spool.copy")
                    files[mark.name] = _copy(folder_fd, mark, snapshot_fd, self._limits.picture_bytes, self._batch)
                    on_file()
                self._batch.add(os.dup(snapshot_fd))
            failpoint("spool.copied")
        return files

    def discard_snapshot(self, job_id: str) -> None:
        """Remove the copies of an upload that turned out not to be complete."""
        remove_folder(self._paths.snapshot(job_id))

    def claim_all(self, ledger: Ledger, offers: Sequence[tuple[Claim, int]], now_s: float) -> list[Job | None]:
        """Take complete uploads whose snapshots are made; together they wait for the disk as often as one alone.

        offers: each claim with its open folder. Returns the job of each: queued, waiting if the folder changed, or
        cancelled if someone asked for that; None if it changed before anything was recorded.
        """
        with storage_errors("copying uploads into the spool"):
            self._batch.sync()
            failpoint("spool.synced")
        jobs: dict[str, Job | None] = {}
        begun: list[_Begun] = []
        with ledger.transaction():
            for claim, folder_fd in offers:
                if self._changed(folder_fd, claim.fingerprint):
                    jobs[claim.job_id] = None
                elif self._begin(ledger, claim, folder_fd, now_s):
                    begun.append(_Begun(claim.job_id, claim.name, claim.origin, folder_fd))
                else:
                    jobs[claim.job_id] = ledger.job(claim.job_id)
        with storage_errors("moving uploads into the spool"):
            jobs |= {job.id: job for job in self._finish(ledger, begun, now_s)}
        return [jobs[claim.job_id] for claim, _ in offers]

    def recover(self, ledger: Ledger, now_s: float) -> list[Job]:
        """Finish or undo every claim that was interrupted, by a crash or a full disk. Returns their jobs."""
        return [self._resume(ledger, job, origin, now_s) for job, origin in ledger.pending_claims()]

    def sweep(self, ledger: Ledger) -> None:
        """At start-up: remove what an interrupted copy left of jobs that are not claimed."""
        names = [folder.name for folder in (self._paths.jobs).iterdir()]
        for start in range(0, len(names), _SWEPT):
            for name in ledger.without_files(names[start : start + _SWEPT]):
                if not self._paths.upload(name).exists():
                    shutil.rmtree(self._paths.job(name))

    def remove_placeholders(self, ledger: Ledger) -> list[str]:
        """Take back the empty folders that claims left in `inputs/`, where they have no use any more; their names.

        One in which something was put meanwhile, or that is not the one we made, stays: it is an upload of its own.
        """
        useless = ledger.retention.placeholders()
        if not useless:
            return []
        with self.spool.open_inputs() as inputs_fd:
            for name, inode in useless:
                try:
                    if os.stat(name, dir_fd=inputs_fd, follow_symlinks=False).st_ino == inode:
                        os.rmdir(name, dir_fd=inputs_fd)
                except OSError as error:
                    if error.errno not in (*NO_FOLDER, errno.ENOTEMPTY, errno.EACCES, errno.EPERM):
                        raise
            os.fsync(inputs_fd)  # before they are forgotten: one that a power cut brought back would be an upload
        ledger.retention.forget_placeholders([inode for _, inode in useless])
        return [name for name, _ in useless]

    def _resume(self, ledger: Ledger, job: Job, origin: str, now_s: float) -> Job:
        with storage_errors(f"moving {job.name!r} into the spool"):
            moved = self._paths.upload(job.id).is_dir()
            if not self._is_intact(job):
                if moved:
                    self._move_back(job.name, job.id)
                return ledger.abandon_claim(job.id, "its copy in the spool was damaged; it is read again", now_s)
            if moved:
                ours = self._put_placeholder(job.name, job.id)
                self._sync_inputs()
                return ledger.finish_claim(job.id, now_s, ours)
            try:
                with self.spool.open_inputs() as inputs_fd, open_folder(job.name, inputs_fd) as folder_fd:
                    if digest_of(list_folder(folder_fd, self._limits).fingerprint) == origin:
                        return self._finish(ledger, [_Begun(job.id, job.name, origin, folder_fd)], now_s)[0]
            except OSError as error:
                if error.errno not in NO_FOLDER:
                    raise
            return ledger.abandon_claim(job.id, CHANGED, now_s)

    def _begin(self, ledger: Ledger, claim: Claim, folder_fd: int, now_s: float) -> bool:
        uploader = str(os.fstat(folder_fd).st_uid)
        parts = (claim.job_id, claim.manifest, claim.looks, claim.files, claim.origin, uploader, claim.priority)
        return ledger.begin_claim(ClaimIntent(*parts), now_s)

    def _finish(self, ledger: Ledger, begun: Sequence[_Begun], now_s: float) -> list[Job]:
        """The second half of claims: rename, check once more, put an empty folder back, queue."""
        moved: set[str] = set()
        for each in begun:
            failpoint("spool.rename.before")
            moved |= {each.job_id} if self._move_in(each.name, each.job_id) else set()
            failpoint("spool.rename.after")
        failpoint("spool.rename.sync")
        self._sync_inputs()
        lost = {each.job_id for each in begun if self._must_give_back(each, each.job_id in moved)}
        ours: dict[str, int | None] = {}
        for each in begun:
            if each.job_id in moved and each.job_id not in lost:
                ours[each.job_id] = self._put_placeholder(each.name, each.job_id)
        self._sync_inputs()
        failpoint("spool.placeholder.after")
        with ledger.transaction():
            return [
                ledger.abandon_claim(each.job_id, CHANGED, now_s)
                if each.job_id in lost
                else ledger.finish_claim(each.job_id, now_s, ours.get(each.job_id))
                for each in begun
            ]

    def _must_give_back(self, begun: _Begun, moved: bool) -> bool:
        """Did the upload change until the very end? Then it is put back, if it was moved."""
        changed = digest_of(list_folder(begun.folder_fd, self._limits).fingerprint) != begun.origin
        if moved:
            upload = self._paths.upload(begun.job_id)
            changed |= not os.path.samestat(os.fstat(begun.folder_fd), upload.lstat())
        # Where a new folder already stands in its place, the verified copy is used and the newcomer is the next upload.
        return changed and (not moved or self._move_back(begun.name, begun.job_id))

    def _move_in(self, name: str, job_id: str) -> bool:
        """Rename the upload into the spool. False if it may not be moved, or is gone: the copy is used either way."""
        with self.spool.open_inputs() as inputs_fd, open_folder(self._paths.job(job_id)) as job_fd:
            try:
                os.rename(name, UPLOAD, src_dir_fd=inputs_fd, dst_dir_fd=job_fd)
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno in RENAME_REFUSED:
                    return False
                raise
            self._batch.add(os.dup(job_fd))
        return True

    def _sync_inputs(self) -> None:
        """Make durable what was renamed or made in `inputs/`, and all else that waits for it."""
        self._batch.add(os.open(f"{self._paths.inputs}/.", FOLDER_FLAGS))
        self._batch.sync()

    def _move_back(self, name: str, job_id: str) -> bool:
        """Undo `_move_in`. False if another folder already stands there."""
        with self.spool.open_inputs() as inputs_fd, open_folder(self._paths.job(job_id)) as job_fd:
            try:
                os.rename(UPLOAD, name, src_dir_fd=job_fd, dst_dir_fd=inputs_fd)
            except OSError as error:
                if error.errno in (*RENAME_REFUSED, errno.ENOTDIR):
                    return False
                raise
            os.fsync(inputs_fd)
            os.fsync(job_fd)
        return True

    def _put_placeholder(self, name: str, job_id: str) -> int | None:
        """Put an empty folder where the upload was, with its owner and rights: the place for RETRY and CANCEL.

        Returns its inode, or None if something stands there already. An empty folder is what an interrupted claim left.
        """
        came = self._paths.upload(job_id).lstat()
        rights = stat.S_IMODE(came.st_mode) | stat.S_IRWXU
        with self.spool.open_inputs() as inputs_fd:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, rights & 0o777, dir_fd=inputs_fd)
            try:
                with open_folder(name, inputs_fd) as folder_fd:
                    return None if os.listdir(folder_fd) else _hand_over(folder_fd, came, rights)  # noqa: PTH208 - a handle
            except OSError as error:
                if error.errno in NO_FOLDER:
                    return None
                raise

    def _changed(self, folder_fd: int, fingerprint: Fingerprint) -> bool:
        return list_folder(folder_fd, self._limits).fingerprint != fingerprint

    def _is_intact(self, job: Job) -> bool:
        """Are the copies what the ledger says they are?"""
        folder = self._paths.snapshot(job.id)
        try:
            return all(hash_file(folder / name) == sha256 for name, sha256 in job.files.items())
        except FileNotFoundError:
            return False


def _copy(folder_fd: int, mark: FileMark, snapshot_fd: int, limit_bytes: int, batch: FsyncBatch) -> str:
    try:
        return copy_file(folder_fd, mark, snapshot_fd, limit_bytes, batch)
    except OSError as error:
        if error.errno in (*NO_FOLDER, errno.ENXIO):
            raise FileChanged(mark.name) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UploadError(f"{mark.name!r} may not be read.", hint="Make it readable: chmod a+r.") from error
        raise


def _hand_over(folder_fd: int, came: os.stat_result, rights: int) -> int:
    """Give a folder the owner and rights of the upload whose place it takes; returns its inode."""
    if os.geteuid() == 0:
        os.fchown(folder_fd, came.st_uid, came.st_gid)
    # systemd's RestrictSUIDSGID forbids to set the setgid bit, even where mkdir has inherited it.
    with contextlib.suppress(PermissionError):
        os.fchmod(folder_fd, rights)
    return os.fstat(folder_fd).st_ino
