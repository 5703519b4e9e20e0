"""The ledger's file: its tables, and one connection to it for all threads of a process."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.storage.migrations import FORMATS, SCHEMA_VERSION
from fastfit_watch.system.failpoints import failpoint

BUSY_TIMEOUT_S = 20.0


class Database:
    """An open ledger. Raises StorageError when the disk is full or failing."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the ledger, making it first where it is missing; `read_only` never makes or changes one.

        Raises ConfigError if it is missing (read-only) or belongs to another version of this program.
        """
        self.path = path
        self._read_only = read_only
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._steps: list[str] | None = None
        if read_only and not path.exists():
            raise ConfigError(f"There is no ledger at {path}.", hint="Start the daemon once: fastfit-watch run.")
        with self.reading():
            pass

    def close(self) -> None:
        """Close the file. The ledger opens again by itself if it is used afterwards."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def external_version(self) -> int:
        """Return a number that differs after another process has written. Costs next to nothing."""
        with self.reading() as db:
            (count,) = db.execute("PRAGMA data_version").fetchone()
            return int(count)

    def job_version(self) -> int:
        """Return a number that differs after any job has changed, by whomever."""
        with self.reading() as db:
            (count,) = db.execute("SELECT moves FROM turns").fetchone()
            return int(count)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One commit for all that is written in the block: durable when it ends, undone if anything goes wrong in it.

        No other thread can use the ledger meanwhile: do nothing slow in the block.
        """
        with self._lock, self._translating():
            if self._steps is not None:
                yield
                return
            steps: list[str] = []
            try:
                with self.writing("together"):
                    self._steps = steps
                    yield
            finally:
                self._steps = None
            for step in steps:
                failpoint(f"ledger.{step}.after")

    @contextmanager
    def writing(self, step: str) -> Iterator[sqlite3.Connection]:
        """One transaction that is durable when the block ends, and undone if anything goes wrong in it."""
        with self._lock, self._translating():
            if self._steps is not None and self._connection is not None:
                with self._part(self._connection):
                    yield self._connection
                    failpoint(f"ledger.{step}.before")
                self._steps.append(step)
                return
            db = self._open()
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                failpoint(f"ledger.{step}.before")
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
            failpoint(f"ledger.{step}.after")

    @contextmanager
    def _part(self, db: sqlite3.Connection) -> Iterator[None]:
        """A step of a common transaction: if it goes wrong, it alone is undone."""
        db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if db.in_transaction:  # SQLite itself undoes everything when the disk is full
                db.execute("ROLLBACK TO part")
                db.execute("RELEASE part")
            raise
        db.execute("RELEASE part")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the ledger."""
        with self._lock, self._translating():
            if self._steps is not None and self._connection is not None:
                yield self._connection
                return
            db = self._open()
            try:
                db.execute("BEGIN")
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        """The connection; a new one if the file was removed or replaced beneath it, as when inputs/ was."""
        if self._connection is not None and _identity(self.path) == self._identity:
            return self._connection
        self.close()
        mode = "ro" if self._read_only else "rwc"
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            db.row_factory = sqlite3.Row
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        self._connection, self._identity = db, _identity(self.path)
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Settings of the connection, and the schema of a new file."""
        if not self._read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION or (self._read_only and version != SCHEMA_VERSION):
            later = "Run the version of fastfit-watch that wrote it."
            raise ConfigError(
                f"The ledger {self.path} has format {version}; this program reads format {SCHEMA_VERSION}.",
                hint=later if version > SCHEMA_VERSION else "Start the daemon: it brings the ledger up to date.",
            )
        for statement in (statement for format_ in FORMATS[version:] for statement in format_):
            db.execute(statement)
        if version < SCHEMA_VERSION:
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if not self._read_only:
            db.execute("COMMIT")

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Errors of SQLite and of the disk become StorageError; a mistake in our own SQL does not."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"The ledger {self.path} cannot be used: {error}.",
                hint="Free some disk space, or check the disk; work goes on by itself afterwards.",
            ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino
