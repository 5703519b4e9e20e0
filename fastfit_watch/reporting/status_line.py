"""Writes `status.txt`: one line that says where a job stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import Job, LookProgress, LookRecord, LookStatus, Status
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.text import duration
from fastfit_watch.system.atomic_write import write_text

STATUS_FILE = "status.txt"


SHOWN_QUEUED = 50  # so many in line know their place


def publish_status(
    config: Config,
    job: Job,
    looks: Sequence[LookRecord],
    progress: LookProgress | None,
    queue_position: int,
    newer: str = "",
) -> None:
    """Write the job's one-line `status.txt`; nothing is written when the line has not changed.

    queue_position: jobs that will be served before this one. newer: the job of a later upload of the same name.
    """
    folder = config.outputs / job.id
    line = with_newer(status_line(job, looks, progress, queue_position), newer) + "\n"
    path = folder / STATUS_FILE
    if path.is_file() and path.read_text(encoding="utf-8") == line:
        return
    # Unless it is the last one, it need not outlive a power cut: the next start writes it again.
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, line, durable=job.status.is_final)


def status_line(job: Job, looks: Sequence[LookRecord], progress: LookProgress | None, queue_position: int) -> str:
    """One sentence such as `running: 3 of 8, about 40 s left`."""
    if job.status is Status.QUEUED and job.reason.startswith("paused"):
        return f"queued: {job.reason}"
    if job.status is Status.QUEUED:
        ahead = {0: "next in line", 1: "1 job before this one"}.get(
            queue_position, f"{queue_position} jobs before this one"
        )
        if queue_position >= SHOWN_QUEUED:
            ahead = f"more than {SHOWN_QUEUED - 1} jobs before this one"
        return f"queued: {ahead}"
    if job.status is Status.RUNNING and any(record.status is LookStatus.CANCELLED for record in looks):
        count = Counter(record.status for record in looks)
        made, in_hand = count[LookStatus.DONE], count[LookStatus.RUNNING]
        return f"running: cancelled by request, {made} of {len(looks)} made, {in_hand} in hand to be finished first"
    if job.status is Status.RUNNING:
        finished = sum(record.status not in (LookStatus.QUEUED, LookStatus.RUNNING) for record in looks)
        return f"running: {finished} of {len(looks)}{_remaining(progress)}{_lowered(progress)}{_waits(job, looks)}"
    if job.status is Status.DONE:
        seconds = (job.finished_s or 0) - (job.started_s or job.finished_s or 0)
        made = sum(record.status is not LookStatus.WITHHELD for record in looks)
        return f"done: {_count(made, 'picture')} in {seconds:.0f} s{_kept_back(looks)}"
    return f"{job.status.value}: {job.reason}" if job.reason else job.status.value


def with_newer(line: str, newer: str) -> str:
    """The status line of a job whose folder was uploaded again as the job `newer`, if it was."""
    return f"{line}; uploaded again: see {newer}" if newer else line


def _remaining(progress: LookProgress | None) -> str:
    if progress is None or progress.eta_s is None:
        return ""
    return f", about {duration(progress.eta_s)} left"


def _lowered(progress: LookProgress | None) -> str:
    if progress is None or progress.rung == Rung.FULL:
        return ""
    return f", with less memory ({progress.rung})"


def _kept_back(looks: Sequence[LookRecord]) -> str:
    withheld = [f"{record.look.key}: {record.reason}" for record in looks if record.status is LookStatus.WITHHELD]
    return f"; withheld: {'; '.join(withheld)}" if withheld else ""


def _waits(job: Job, looks: Sequence[LookRecord]) -> str:
    """Why nothing moves just now, if that is so: a look waits for its next attempt."""
    if any(record.status is LookStatus.RUNNING for record in looks):
        return ""
    if job.reason.startswith("paused"):
        return f" ({job.reason})"
    reasons = [record.reason for record in looks if record.status is LookStatus.QUEUED and record.reason]
    return f" ({reasons[0]})" if reasons else f" ({job.reason})" if job.reason else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
