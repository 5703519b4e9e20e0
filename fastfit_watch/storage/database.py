"""The ledger's file: its tables, and one connection to it for all threads of a process."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.system.failpoints import failpoint

BUSY_TIMEOUT_S = 20.0

# holds_name: the folder of that name in inputs/ is this job's upload and was not claimed yet.
# claiming: the intent to claim is recorded, its end is not. cancelling: no look of it may be started any more.
# turn: when the job was last served, counted in looks started by the whole daemon (clocks jump, counts do not).
# reported: the final state was written to the job's folder in outputs/.
FORMAT_1 = (
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
)
# Statements name these indexes (INDEXED BY) where SQLite, which knows nothing of the sizes, would take another one.
# uploader, batch, priority: see `ledger_turns`. ours: inode of the empty folder that the claim left in inputs/.
# upload, results: 'kept', 'leaving' (being removed) or 'gone'. kept_since_s: see `retention`.
# looks.since_s: when the look was put back; a wait that seems to begin in the future was cut short by a clock set back.
# moves: counts every change of any job.
FORMAT_2 = (
    "ALTER TABLE jobs ADD COLUMN uploader TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE jobs ADD COLUMN priority INTEGER",
    "ALTER TABLE jobs ADD COLUMN batch INTEGER",
    "ALTER TABLE jobs ADD COLUMN ours INTEGER",
    "ALTER TABLE jobs ADD COLUMN upload TEXT NOT NULL DEFAULT 'kept'",
    "ALTER TABLE jobs ADD COLUMN results TEXT NOT NULL DEFAULT 'kept'",
    "ALTER TABLE jobs ADD COLUMN kept_since_s REAL",
    "ALTER TABLE looks ADD COLUMN since_s REAL NOT NULL DEFAULT 0",
    "CREATE TABLE uploaders (name TEXT PRIMARY KEY, turn REAL NOT NULL)",
    """CREATE TABLE batches (
        id INTEGER PRIMARY KEY,
        uploader TEXT NOT NULL,
        priority INTEGER NOT NULL,
        seen_s REAL NOT NULL,
        turn REAL NOT NULL
    )""",
    "INSERT INTO uploaders VALUES ('', 0)",
    "INSERT INTO batches SELECT 1, '', 0, 0, 0 WHERE EXISTS (SELECT 1 FROM jobs WHERE status IN ('queued', 'running'))",
    "UPDATE jobs SET batch = 1 WHERE status IN ('queued', 'running')",
    "DROP INDEX jobs_turn",
    "DROP INDEX jobs_status",
    "CREATE INDEX jobs_status ON jobs (status, changed_s, serial)",
    "CREATE INDEX jobs_batch ON jobs (batch, turn, serial) WHERE status IN ('queued', 'running')",
    "CREATE INDEX batches_line ON batches (uploader, priority, turn, id)",
    "CREATE INDEX jobs_ours ON jobs (status) WHERE ours IS NOT NULL",
    "CREATE INDEX jobs_upload ON jobs (kept_since_s) WHERE upload = 'kept' AND kept_since_s IS NOT NULL",
    "CREATE INDEX jobs_results ON jobs (kept_since_s) WHERE results = 'kept' AND kept_since_s IS NOT NULL",
    "CREATE INDEX jobs_leaving ON jobs (serial) WHERE upload = 'leaving' OR results = 'leaving'",
    "CREATE INDEX jobs_holding ON jobs (serial) WHERE holds_name = 1",
    "CREATE INDEX jobs_ended ON jobs (serial) WHERE reported = 1 AND kept_since_s IS NULL",
    "CREATE INDEX looks_due ON looks (not_before_s) WHERE status = 'queued'",
    "ALTER TABLE turns ADD COLUMN moves INTEGER NOT NULL DEFAULT 0",
    "CREATE TRIGGER jobs_come AFTER INSERT ON jobs BEGIN UPDATE turns SET moves = moves + 1; END",
    """CREATE TRIGGER jobs_move AFTER UPDATE OF status, reason, changed_s, results ON jobs
        BEGIN UPDATE turns SET moves = moves + 1; END""",
)
# letters: what others are told. since_s: when the patience with the receiver began. ended_s: delivered or given up.
FORMAT_3 = (
    """CREATE TABLE letters (
        serial INTEGER PRIMARY KEY AUTOINCREMENT,
        channel TEXT NOT NULL,
        id TEXT NOT NULL,
        job_id TEXT NOT NULL,
        event TEXT NOT NULL,
        body TEXT NOT NULL,
        since_s REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        not_before_s REAL NOT NULL DEFAULT 0,
        ended_s REAL,
        outcome TEXT NOT NULL DEFAULT ''
    )""",
    "CREATE INDEX letters_line ON letters (channel, serial) WHERE ended_s IS NULL",
    "CREATE INDEX letters_job ON letters (channel, job_id, serial)",
    "CREATE INDEX letters_ended ON letters (channel, ended_s) WHERE ended_s IS NOT NULL",
)
FORMATS = (FORMAT_1, FORMAT_2, FORMAT_3)
SCHEMA_VERSION = len(FORMATS)


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

    def change_count(self) -> int:
        """Return a number that differs after another process has written. Costs next to nothing."""
        with self.reading() as db:
            (count,) = db.execute("PRAGMA data_version").fetchone()
            return int(count)

    def moves(self) -> int:
        """Return a number that differs after any job has changed, by whomever."""
        with self.reading() as db:
            (count,) = db.execute("SELECT moves FROM turns").fetchone()
            return int(count)

    @contextmanager
    def together(self) -> Iterator[None]:
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
