"""Fetches a bundle: what is missing, resumed where it broke off, verified, and put in place once all of it is here."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fastfit_watch.bundles import hub
from fastfit_watch.bundles.catalogue import KnownBundle, Repository
from fastfit_watch.bundles.integrity import (
    PARTIAL,
    PLAN,
    RECORD,
    BundleManifest,
    WeightFile,
    compare_content,
    hash_content,
    read_record,
    write_bundle_json,
    write_record,
)
from fastfit_watch.bundles.progress import DownloadProgress, ProgressListener, ProgressMeter
from fastfit_watch.domain.errors import BundleError, StorageError
from fastfit_watch.domain.text import gigabytes
from fastfit_watch.system.atomic_write import commit, make_folder
from fastfit_watch.system.disk_errors import STORAGE_ERRNOS
from fastfit_watch.system.folders import hash_file

_BEFORE = "before.json"
_ATTEMPTS = 4  # in a row without a single new byte
_PAUSE_S = 0.5
_LONGEST_WAIT_S = 600.0  # below engine.load_timeout_s and the unit's TimeoutStartSec
_SPARE_BYTES = 64 * 10**6
_LOOK_S = 1.0
_SHOWN = 20


def fetch(bundle: KnownBundle, root: Path, listener: ProgressListener, *, update: bool = False) -> BundleManifest:
    """Make a bundle's directory complete, and return its record.

    Files that are whole are kept, however they came. The commits of the first fetch count until `update` asks the hub
    for newer ones; the old files then stay until all new ones are here. Where nothing is missing and all is recorded,
    the network is not touched.

    Raises
    ------
    BundleError : the hub refuses or cannot be reached, or a file arrived damaged twice.
    StorageError : the disk is too small, full or failing.
    """
    try:
        make_folder(root)
        with _alone(bundle, root, listener):
            return _Fetch(bundle, root, listener).run(update=update)
    except OSError as error:
        if error.errno in STORAGE_ERRNOS:
            raise StorageError(
                f"Cannot write in {root}: {error.strerror}.", hint="Make room; what is here is kept."
            ) from error
        raise BundleError(
            f"Cannot fetch {bundle.title} into {root}: {error}.", hint="Make the folder writable, or name another one."
        ) from error


class _Fetch:
    """One fetch of one bundle, by the only process that does it."""

    def __init__(self, bundle: KnownBundle, root: Path, listener: ProgressListener) -> None:
        self._bundle, self._root, self._listener = bundle, root, listener
        self._partial = root / PARTIAL

    def run(self, *, update: bool) -> BundleManifest:
        plan = self._plan(update=update)
        missing = [file for file in plan.files if not self._is_here(file)]
        if missing:
            self._get_all(plan, missing)
        return self._finish(plan)

    # What is wanted

    def _plan(self, *, update: bool) -> BundleManifest:
        """The files to have: of the fetch that broke off, of the record, or as the hub lists them now."""
        pinned = read_record(self._partial / PLAN) or read_record(self._root / RECORD)
        if pinned is not None and not update:
            return pinned
        self._listener.say(self._bundle.notice)
        files: list[WeightFile] = []
        revisions = {}
        for repository in self._bundle.repositories:
            revisions[repository.name], listed = self._list(repository)
            files += self._pick(repository, revisions[repository.name], listed)
        if pinned is not None and pinned.revisions == revisions:
            return pinned
        commits = ", ".join(f"{name} {commit_hash}" for name, commit_hash in revisions.items())
        self._listener.say(f"{self._bundle.title} is pinned to {commits}")
        plan = BundleManifest(self._bundle.name, hub.endpoint(), revisions, tuple(files))
        write_record(self._partial / PLAN, plan)
        return plan

    def _list(self, repository: Repository) -> tuple[str, list[hub.HubFile]]:
        """Ask for the commit of a repository and its files, again where the hub cannot answer at once."""
        failures = 0
        while True:
            try:
                return hub.list_files(repository.name, repository.branch, self._root)
            except hub.TransferError as error:
                failures += 1
                self._pause(error, failures, repository.name)

    def _pick(self, repository: Repository, commit_hash: str, listed: list[hub.HubFile]) -> list[WeightFile]:
        """Those files of a repository that the bundle needs."""
        by_name = {file.name: file for file in listed}
        parts = [part for part in self._bundle.parts if part.repository == repository]
        chosen = {part: part.pick(by_name) for part in parts}
        lacking = [f"{part.what} ({' or '.join(part.patterns)})" for part, name in chosen.items() if name is None]
        if lacking:
            seen = ", ".join(sorted(by_name)[:_SHOWN]) or "none"
            raise BundleError(
                f"{repository.name} at {commit_hash} has no file for {'; '.join(lacking)}. Its files: {seen}.",
                hint="Its layout is not the one that this program knows: please report it.",
            )
        files = (by_name[name] for name in chosen.values() if name is not None)
        return [
            WeightFile(
                f"{repository.folder}/{file.name}".removeprefix("/"),
                file.bytes,
                file.sha256,
                file.git_sha1,
                repository.name,
                file.name,
            )
            for file in files
        ]

    def _is_here(self, file: WeightFile) -> bool:
        """Is it whole: fetched and waiting, or in its place?"""
        if (self._partial / file.key).exists():
            return True
        if not (self._root / file.path).exists():
            return False
        fault = compare_content(self._root, file)
        if fault is not None:
            self._listener.warn(f"{fault} It is fetched again.")
        return fault is None

    # Getting it

    def _get_all(self, plan: BundleManifest, missing: list[WeightFile]) -> None:
        if hub.is_offline():
            names = ", ".join(str(self._root / file.path) for file in missing[:_SHOWN])
            raise BundleError(f"HF_HUB_OFFLINE is set, and these are missing: {names}.", hint="Copy them, or unset it.")
        if not (self._partial / PLAN).exists():
            write_record(self._partial / PLAN, plan)
        wanted_bytes = sum(file.bytes for file in missing)
        begun_bytes = sum(min(_size(self._part(file)), file.bytes) for file in missing)
        self._want_room(wanted_bytes - begun_bytes)
        meter = ProgressMeter(
            self._bundle.title, plan.total_bytes, plan.total_bytes - wanted_bytes + begun_bytes, self._listener
        )
        for file in missing:
            self._get(plan, file, meter)

    def _part(self, file: WeightFile) -> Path:
        return self._partial / f"{file.key}.part"

    def _want_room(self, needed_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self._root).free
        if needed_bytes + _SPARE_BYTES > free_bytes:
            raise StorageError(
                f"Fetching {self._bundle.title} needs {gigabytes(needed_bytes + _SPARE_BYTES)} more in {self._root},"
                f" but only {gigabytes(free_bytes)} are free there.",
                hint="Free some space, or name a folder on another disk with --models.",
            )

    def _get(self, plan: BundleManifest, file: WeightFile, meter: ProgressMeter) -> None:
        """Fetch one file and verify it; once more if it arrived damaged."""
        part = self._part(file)
        for attempt in range(2):
            self._append_all(plan, file, part, meter)
            found = hash_content(part, file)
            if found == (file.sha256 or file.git_sha1):
                commit(part, self._partial / file.key)
                return
            part.unlink()
            meter.count(-file.bytes)
            damage = f"{file.name} of {file.repository} arrived damaged: its hash is {found}, not {file.key}."
            if attempt == 0:
                self._listener.warn(f"{damage} It is fetched once more.")
        raise BundleError(
            f"{damage} It did so twice.",
            hint=f"Something between here and {hub.endpoint()} changes files: a proxy, a mirror, or failing memory.",
        )

    def _append_all(self, plan: BundleManifest, file: WeightFile, part: Path, meter: ProgressMeter) -> None:
        """Fetch what a part still lacks, however often the connection breaks, as long as anything comes."""
        idle, reached = 0, _size(part)
        while True:
            try:
                self._append(plan, file, part, meter)
                return
            except hub.TransferError as error:
                trouble = error
            size = _size(part)
            idle = 0 if size > reached else idle + 1
            reached = max(size, reached)
            self._pause(trouble, idle, f"{file.name}, {gigabytes(size)} of it here")

    def _pause(self, trouble: hub.TransferError, failures: int, what: str) -> None:
        """Wait before the next attempt, as long as the hub says. Raises BundleError where no attempt is left."""
        wait_s = _PAUSE_S * 2**failures if trouble.wait_s is None else trouble.wait_s
        if failures >= _ATTEMPTS or wait_s > _LONGEST_WAIT_S:
            raise hub.unreachable(trouble, self._root) from trouble
        self._listener.warn(f"{what}: {trouble}; going on from there in {wait_s:.0f} s.")
        time.sleep(wait_s)

    def _append(self, plan: BundleManifest, file: WeightFile, part: Path, meter: ProgressMeter) -> None:
        """Ask once for the rest of a part, and append what comes. Raises hub.TransferError if it is not all."""
        with part.open("ab") as stream:
            if stream.tell() > file.bytes:
                _begin_anew(stream, meter)
            if stream.tell() < file.bytes:
                commit_hash = plan.revisions[file.repository]
                chunks = hub.read_file(file.repository, commit_hash, file.name, stream.tell(), self._root)
                for position, chunk in chunks:
                    if position < stream.tell():
                        _begin_anew(stream, meter)
                    stream.write(chunk)
                    stream.flush()
                    meter.count(len(chunk))
            os.fsync(stream.fileno())
            if stream.tell() != file.bytes:
                raise hub.TransferError(f"{stream.tell()} of {file.bytes} bytes came")

    # Putting it in place

    def _finish(self, plan: BundleManifest) -> BundleManifest:
        """Move everything to its place and record it. Ended at any point, the next fetch does it again."""
        if self._partial.exists():
            if (self._root / RECORD).exists():
                # From here on only the plan counts: a mixture of two commits must not pass for either.
                commit(self._root / RECORD, self._partial / _BEFORE)
            for file in plan.files:
                if (self._partial / file.key).exists():
                    make_folder((self._root / file.path).parent)
                    commit(self._partial / file.key, self._root / file.path)
            self._remove_outdated(plan)
            files = (replace(file, sha256=file.sha256 or hash_file(self._root / file.path)) for file in plan.files)
            plan = replace(plan, files=tuple(files))
            write_record(self._root / RECORD, plan)
        write_bundle_json(self._root, self._bundle, plan)
        shutil.rmtree(self._partial, ignore_errors=True)
        return plan

    def _remove_outdated(self, plan: BundleManifest) -> None:
        """Remove what the last commit had and this one has not: it could be taken for a part."""
        before = read_record(self._partial / _BEFORE)
        if before is not None:
            for path in {file.path for file in before.files} - {file.path for file in plan.files}:
                (self._root / path).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _begin_anew(stream: io.BufferedWriter, meter: ProgressMeter) -> None:
    meter.count(-stream.tell())
    stream.truncate(0)
    stream.seek(0)


@contextlib.contextmanager
def _alone(bundle: KnownBundle, root: Path, listener: ProgressListener) -> Iterator[None]:
    """Wait until no other process fetches this bundle; its progress is passed on meanwhile."""
    with (root.parent / f".{root.name}.lock").open("a") as lock:
        seen = -1
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                plan = read_record(root / PARTIAL / PLAN)
                here = sum(_size(path) for path in (root / PARTIAL).glob("*") if path.suffix != ".json")
                if here != seen and plan is not None:
                    seen = here
                    listener.show(DownloadProgress(bundle.title, here, plan.total_bytes, note="by another process"))
                time.sleep(_LOOK_S)
        yield
