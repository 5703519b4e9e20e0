"""The ledger's file: its tables, and one connection to it for all threads of a process."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastfit_watch.errors import ConfigError, StorageError
from fastfit_watch.failpoints import failpoint

BUSY_TIMEOUT_S = 20.0
SCHEMA_VERSION = 1

# holds_name: the folder of that name in inputs/ is this job's upload and was not claimed yet.
# claiming: the intent to claim is recorded, its end is not. cancelling: no look of it may be started any more.
# turn: when the job was last served, counted in looks started by the whole daemon (clocks jump, counts do not).
# reported: the final state was written to the job's folder in outputs/.
SCHEMA = (
    """CREATE TABLE jobs (
        serial INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT NOT NULL,
        first_seen_s REAL NOT NULL,
        changed_s REAL NOT NULL,
        claimed_s REAL,
        started_s REAL,
        finished_s REAL,
        manifest TEXT NOT NULL DEFAULT '',
        files TEXT NOT NULL DEFAULT '{}',
        origin TEXT NOT NULL DEFAULT '',
        holds_name INTEGER NOT NULL DEFAULT 1,
        claiming INTEGER NOT NULL DEFAULT 0,
        cancelling INTEGER NOT NULL DEFAULT 0,
        turn INTEGER NOT NULL DEFAULT 0,
        reported INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE UNIQUE INDEX jobs_holder ON jobs (name) WHERE holds_name = 1",
    "CREATE INDEX jobs_name ON jobs (name, origin)",
    "CREATE INDEX jobs_status ON jobs (status)",
    "CREATE INDEX jobs_changed ON jobs (changed_s, serial)",
    "CREATE INDEX jobs_turn ON jobs (turn, serial) WHERE status IN ('queued', 'running')",
    "CREATE INDEX jobs_claiming ON jobs (claiming) WHERE claiming = 1",
    "CREATE INDEX jobs_unreported ON jobs (serial) WHERE reported = 0 AND status IN ('done', 'failed', 'cancelled')",
    """CREATE TABLE looks (
        job_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        key TEXT NOT NULL,
        look TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        deaths INTEGER NOT NULL DEFAULT 0,
        not_before_s REAL NOT NULL DEFAULT 0,
        result TEXT,
        PRIMARY KEY (job_id, key)
    )""",
    "CREATE INDEX looks_order ON looks (job_id, status, position)",
    "CREATE INDEX looks_running ON looks (job_id, position) WHERE status = 'running'",
    "CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE turns (last INTEGER NOT NULL)",
    "INSERT INTO turns VALUES (0)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class LedgerFile:
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

    def change_count(self) -> int:
        """Return a number that differs after another process has written. Costs next to nothing."""
        with self.reading() as db:
            (count,) = db.execute("PRAGMA data_version").fetchone()
            return int(count)

    @contextmanager
    def writing(self, step: str) -> Iterator[sqlite3.Connection]:
        """One transaction that is durable when the block ends, and undone if anything goes wrong in it."""
        with self._lock, self._translating():
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
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the ledger."""
        with self._lock, self._translating():
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
        if version == 0 and not self._read_only:
            for statement in SCHEMA:
                db.execute(statement)
        elif version != SCHEMA_VERSION:
            raise ConfigError(
                f"The ledger {self.path} has format {version}; this program reads format {SCHEMA_VERSION}.",
                hint="Run the version of fastfit-watch that wrote it.",
            )
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
