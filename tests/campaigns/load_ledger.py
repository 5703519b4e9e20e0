"""A ledger as it is after a year, a million looks in it: how long does each question take that is asked all the time?

    python tests/campaigns/load_ledger.py --jobs 200000 --looks 5 --folder /somewhere/with/room

Ends with 1 if a question that the daemon or a command asks takes longer than its limit.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fastfit_watch.domain.job import ClaimIntent, LookResult, Status
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.rows import pack_look, pack_result

QUEUED = 1000
STEP_S = 0.02
COMMAND_S = 0.3


def fill(ledger: Ledger, jobs: int, looks: int) -> None:
    """Finished jobs in the past; the last thousand are queued, by ten uploaders."""
    result = LookResult("a.png", "ab" * 32, 1024, 768, {"denoise": 1.5, "decode": 0.1}, 5 * 2**30, "cuda:0", VERSIONS)
    packed, text = pack_result(result), pack_look(Look("anna.jpg", "l", {Category.UPPER: "shirt.jpg"}, OPTIONS))
    files = json.dumps({"anna.jpg": "ab" * 32, "shirt.jpg": "cd" * 32, "outfit.yaml": "ef" * 32})
    with ledger.database.writing("fill") as db:
        db.executemany(
            "INSERT INTO jobs (id, name, status, reason, first_seen_s, changed_s, claimed_s, finished_s, manifest,"
            " files, origin, holds_name, reported, kept_since_s) VALUES (?, ?, 'done', '5 pictures made', ?, ?, ?, ?,"
            " 'outfit.yaml', ?, ?, 0, 1, ?)",
            ((f"j{n}", f"j{n}", n, n, n, n, files, f"{n:064}", n) for n in range(jobs - QUEUED)),
        )
        db.executemany(
            "INSERT INTO looks (job_id, position, key, look, status, attempts, result)"
            " VALUES (?, ?, ?, ?, 'done', 1, ?)",
            ((f"j{n}", k, f"anna.l{k}", text, packed) for n in range(jobs - QUEUED) for k in range(looks)),
        )
    wanted = [Look("anna.jpg", f"l{k}", {Category.UPPER: "shirt.jpg"}, OPTIONS) for k in range(looks)]
    with ledger.transaction():
        for number in range(jobs - QUEUED, jobs):
            job = ledger.find_or_create_unclaimed(f"j{number}", float(number))
            uploader = str(number % 10)
            ledger.begin_claim(
                ClaimIntent(job.id, "outfit.yaml", wanted, {}, f"{number}", uploader=uploader), float(number)
            )
            ledger.finish_claim(job.id, float(number))


VERSIONS = {"torch": "2.11.0", "diffusers": "0.42.0", "fastfit-watch": "0.1.0"}
OPTIONS = SamplingOptions(seed=7)


def questions(ledger: Ledger, jobs: int) -> dict[str, tuple[Callable[[], object], float]]:
    """What is asked, and how long the answer may take."""
    last = f"j{jobs - 1}"
    now_s = float(2 * jobs)

    def serve() -> None:
        (record,) = ledger.next_looks(now_s, 1)
        ledger.start_attempt(record.job_id, record.look.key, now_s)
        ledger.put_back(record.job_id, record.look.key, "", 0.0, now_s)

    return {
        "which look is next": (lambda: ledger.next_looks(now_s, 1), STEP_S),
        "hand one out and take it back": (serve, 3 * STEP_S),
        "the first fifty in line": (lambda: ledger.jobs_in_turn(50), STEP_S),
        "has anything changed": (lambda: (ledger.database.job_version(), ledger.requests.paused()), STEP_S),
        "is there work": (lambda: ledger.jobs((Status.QUEUED, Status.RUNNING), limit=1), STEP_S),
        "what waits in inputs/": (ledger.unclaimed_jobs, STEP_S),
        "the newest job of a name": (lambda: ledger.newest_job_named(last), STEP_S),
        "reports to write": (lambda: ledger.unreported(100), STEP_S),
        "looks in hand after a crash": (ledger.running_looks, STEP_S),
        "claims to finish": (ledger.pending_claims, STEP_S),
        "empty folders to take back": (ledger.retention.placeholders, STEP_S),
        "what may be removed": (lambda: ledger.retention.begin_leaving("upload", -1.0, 20), STEP_S),
        "what is being removed": (lambda: ledger.retention.leaving("upload", 20), STEP_S),
        "a new upload of an old name": (lambda: ledger.find_or_create_unclaimed("j17", now_s), STEP_S),
        "how many jobs of each state": (ledger.counts, COMMAND_S),
        "the thirty newest jobs": (lambda: ledger.jobs(limit=30), COMMAND_S),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and tell whether every limit holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--looks", type=int, default=5, help="of each job")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to work")
    chosen = parser.parse_args(arguments)
    home = Path(tempfile.mkdtemp(prefix="ledger-", dir=chosen.folder))
    slow = []
    with closing(Ledger(home / "ledger.db")) as ledger:
        fill(ledger, chosen.jobs, chosen.looks)
        ledger.close()
        size_mb = (home / "ledger.db").stat().st_size / 1e6
        print(f"{platform.node()}: {chosen.jobs} jobs, {chosen.jobs * chosen.looks} looks, {size_mb:.0f} MB")
        for what, (ask, limit_s) in questions(ledger, chosen.jobs).items():
            times_s = []
            for _ in range(5):
                began_s = time.perf_counter()
                ask()
                times_s.append(time.perf_counter() - began_s)
            took_s = sorted(times_s)[2]
            verdict = "ok" if took_s <= limit_s else "TOO SLOW"
            print(f"  {what:32} {took_s * 1e3:8.2f} ms (limit {limit_s * 1e3:.0f}) {verdict}")
            slow += [what] if took_s > limit_s else []
    shutil.rmtree(home)
    print("too slow: " + ", ".join(slow) if slow else "every limit holds")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
