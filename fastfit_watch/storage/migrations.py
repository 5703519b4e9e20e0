"""The schema of the ledger, format by format, and how an older one becomes the present one."""

from __future__ import annotations

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
