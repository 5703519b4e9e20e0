"""How things are at one moment, read from the ledger and from the pace that the daemon leaves beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from fastfit_watch.config.paths import Paths
from fastfit_watch.domain.daemon_state import DAEMON_NOTE, DaemonState
from fastfit_watch.domain.job import Job, LookProgress, LookStatus, Status, Tally
from fastfit_watch.domain.loose_files import LOOSE_NOTE, LooseFiles
from fastfit_watch.reporting.eta import SECONDS_NOTE, LiveProgress, after_progress, read_pace, times_left_s
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.queries import job_ids, oldest_jobs
from fastfit_watch.storage.spool import SpoolPaths

VERSION = 1
"""Of the JSON form. It changes only when something is renamed or taken out; new keys do not change it."""

_ACTIVE = (Status.RUNNING, Status.QUEUED)
_UNFINISHED = (*_ACTIVE, Status.WAITING, Status.STALLED, Status.INVALID)
_FINAL = tuple(status for status in Status if status.is_final)
_PENDING = (LookStatus.RUNNING, LookStatus.QUEUED)


@dataclass(frozen=True)
class JobState:
    """One job with its looks by state, the look in hand, and the seconds until it is made, where these are known."""

    job: Job
    looks: dict[LookStatus, Tally]
    now: LookProgress | None
    time_left_s: float | None

    @property
    def made(self) -> int:
        """Pictures that are done."""
        return self.looks.get(LookStatus.DONE, Tally()).looks

    @property
    def total(self) -> int:
        """Pictures in all; 0 before the job is claimed."""
        return sum(tally.looks for tally in self.looks.values())

    @property
    def share(self) -> float:
        """How much is done, 0..1, the look in hand included."""
        begun = self.now.step / self.now.steps if self.now is not None and self.now.steps else 0.0
        return (self.made + min(begun, 1.0)) / self.total if self.total else 0.0


@dataclass(frozen=True)
class Overview:
    """Everything at one moment.

    jobs: unfinished ones first, in the order they are served; then the newest. loose: files that belong to no upload.
    """

    at_s: float
    daemon: DaemonState
    paused: str | None
    counts: dict[Status, int]
    seconds_per_step: float | None
    time_left_s: float | None
    jobs: tuple[JobState, ...]
    loose: LooseFiles = field(default_factory=LooseFiles)


def take_overview(ledger: Ledger, paths: Paths, now_s: float, limit: int | None = None) -> Overview:
    """Read how things are. limit: at most so many jobs, counted and timed as if all were there."""
    daemon = DaemonState.from_json(ledger.note(DAEMON_NOTE), now_s)
    pace = read_pace(SpoolPaths(paths.inputs).progress, now_s) if daemon.is_running else LiveProgress(now_s, 1)
    active = job_ids(ledger, _ACTIVE)
    jobs = oldest_jobs(ledger, _UNFINISHED, limit)
    jobs += reversed(ledger.jobs(_FINAL, limit=None if limit is None else limit - len(jobs)))
    tallies = ledger.tallies(None if limit is None else {*active, *(job.id for job in jobs)})
    known = ledger.note(SECONDS_NOTE)
    seconds_per_step = float(known) if known else None
    steps = {job: sum(tallies.get(job, {}).get(status, Tally()).steps for status in _PENDING) for job in active}
    left = {job: after_progress(count, pace.looks.get(job)) for job, count in steps.items()}
    paused = ledger.requests.paused()
    moving = seconds_per_step is not None and paused is None and daemon.is_running
    times_s = times_left_s(left, seconds_per_step, pace.engines) if moving and seconds_per_step is not None else {}
    states = [_judge(job, tallies.get(job.id, {}), pace, times_s.get(job.id)) for job in jobs]
    longest_s = max(times_s.values(), default=None)
    counts = ledger.counts()
    loose = LooseFiles.from_note(ledger.note(LOOSE_NOTE))
    return Overview(now_s, daemon, paused, counts, seconds_per_step, longest_s, tuple(states), loose)


def as_data(overview: Overview) -> dict[str, Any]:
    """The overview as `docs/status.schema.json` describes it."""
    return {
        "version": VERSION,
        "at_s": overview.at_s,
        "daemon": asdict(overview.daemon),
        "paused": overview.paused,
        "seconds_per_step": overview.seconds_per_step,
        "time_left_s": overview.time_left_s,
        "counts": {status.value: overview.counts.get(status, 0) for status in Status},
        "loose_files": {"count": overview.loose.count, "names": list(overview.loose.names)},
        "jobs": [_job_data(state) for state in overview.jobs],
    }


def _job_data(state: JobState) -> dict[str, Any]:
    job, now = state.job, state.now
    return {
        "id": job.id,
        "name": job.name,
        "status": job.status.value,
        "reason": job.reason,
        "first_seen_s": job.first_seen_s,
        "changed_s": job.changed_s,
        "claimed_s": job.claimed_s,
        "started_s": job.started_s,
        "finished_s": job.finished_s,
        "manifest": job.manifest,
        "files": dict(job.files),
        "looks": {status.value: state.looks.get(status, Tally()).looks for status in LookStatus},
        "now": None if now is None else {"look": now.look, "stage": now.stage, "step": now.step, "steps": now.steps},
        "time_left_s": state.time_left_s,
    }


def _judge(job: Job, looks: dict[LookStatus, Tally], pace: LiveProgress, time_left_s: float | None) -> JobState:
    now = pace.looks.get(job.id) if job.status is Status.RUNNING else None
    return JobState(job, looks, now, time_left_s)
