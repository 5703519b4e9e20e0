"""A job as the pages show it, and as a card on the front page or in the archive."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.domain.job import Job, LookProgress, LookRecord, Status
from fastfit_watch.domain.text import duration
from fastfit_watch.reporting.gallery.templates import count_pictures, macros, shorten
from fastfit_watch.reporting.gallery.thumbs import THUMBS, thumb_file

if TYPE_CHECKING:
    from markupsafe import Markup

_TILES = 8  # pictures on one card
_REASON = 300  # characters of a reason on a card
_REMEDIES = {
    Status.INVALID: "mend",
    Status.STALLED: "finish",
    Status.FAILED: "retry",
    Status.CANCELLED: "retry",
}
TROUBLED = (Status.FAILED, Status.INVALID, Status.STALLED)
# Faults of a manifest stand in one line, each beginning with its place, outfit.yaml:3: ..., and so do those of a job's
# looks, each beginning with its key, anna.casual: ..., after how many there are.
_NEXT_FAULT = re.compile(r"(?<=looks failed: )|; (?=[^ ;]+:\d+: |[^;:]+\.[^;:]+: |and \d+ more|\d+ withheld: )")


@dataclass(frozen=True)
class Entry:
    """What a page shows of one job.

    folder: its folder in outputs/. base: the way there from the page, ending in a slash; empty on the job's own pages.
    withheld: how many pictures the content filter withheld. pictures: some finished looks of it. looks: names of its
    looks. progress: how far the look in hand is.
    """

    job: Job
    folder: Path
    base: str = ""
    made: int = 0
    total: int = 0
    withheld: int = 0
    pictures: Sequence[LookRecord] = ()
    looks: Sequence[str] = ()
    progress: LookProgress | None = None

    @property
    def anchor(self) -> str:
        """An id for the page: letters and digits, whatever the job is called."""
        return "job-" + thumb_file(self.job.id).removesuffix(".webp")

    @cached_property
    def is_gone(self) -> bool:
        """Whether somebody took the results of a finished job away."""
        return self.job.status.is_final and not (self.job.has_results and self.folder.is_dir())

    @property
    def is_troubled(self) -> bool:
        """Whether somebody has to do something about the job."""
        return self.job.status in TROUBLED

    @property
    def quoted(self) -> str:
        """The job's name as one word for a shell."""
        return shlex.quote(self.job.id)

    @property
    def remedy(self) -> str:
        """What to do about the job: `mend`, `finish` or `retry` it; empty where nothing is to be done."""
        if self.job.status is Status.CANCELLED and self.job.claimed_s is None:
            return ""
        return _REMEDIES.get(self.job.status, "")

    @property
    def reason(self) -> tuple[str, list[str]]:
        """Why the job is as it is, as `split_faults` parts it."""
        return split_faults(self.job.reason)

    @property
    def short_reason(self) -> tuple[str, list[str]]:
        """The reason as far as a card has room for it."""
        return split_faults(shorten(self.job.reason, _REASON))

    @property
    def facts(self) -> Iterator[str]:
        """What stands beside the job's state on a card."""
        job = self.job
        if job.status is Status.WAITING:
            yield shorten(job.reason, _REASON)
        if self.total:
            some = f"{self.made} of " if self.made < self.total else ""
            yield some + count_pictures(self.total)
        if job.started_s is not None and job.finished_s is not None:
            yield duration(job.finished_s - job.started_s)
        if self.progress_line:
            yield self.progress_line

    @property
    def progress_line(self) -> str:
        """What the engine is at, and how long it takes: `ben.gala: step 12 of 30, about 40 s left`."""
        progress = self.progress
        if progress is None:
            return ""
        at = f"step {progress.step} of {progress.steps}" if progress.step else progress.stage
        left = f", about {duration(progress.eta_s)} left" if progress.eta_s is not None else ""
        return f"{progress.look}: {at}{left}"

    def columns(self, tiles: int) -> str:
        """The columns that a card with so many tiles needs, as a class of the style sheet; empty: all of them.

        Small cards share a row.
        """
        status = self.job.status
        if status not in (Status.QUEUED, Status.DONE, Status.CANCELLED) and (tiles or status is not Status.RUNNING):
            return ""
        return ("brief", "single", "double", "")[min(tiles, 3)]

    def person(self, record: LookRecord) -> str:
        """The person's file name without its extension."""
        return record.look.person.rsplit(".", 1)[0]

    def upload_thumb(self, file: str) -> str:
        """The file name of an upload's small picture."""
        return thumb_file(self.job.files.get(file, file))

    def result_thumb(self, record: LookRecord) -> str:
        """The file name of a result's small picture."""
        return thumb_file(record.result.sha256 if record.result is not None else "")

    def has_thumb(self, thumb: str) -> bool:
        """Whether there is a small picture of this name."""
        return (self.folder / THUMBS / thumb).is_file()


def draw_card(entry: Entry, most: int) -> Markup:
    """Draw a job's card in at most about `most` characters; a job with very long texts gets its head alone."""
    drawing = macros("card.html")
    bare = drawing.card(entry, (), "[]", short=False)
    is_short = len(bare) > most
    tiles: list[Markup] = []
    if not is_short and not entry.is_gone:
        tiles += _fitting((drawing.tile(entry, record) for record in entry.pictures[:_TILES]), most - len(bare))
    names: list[str] = []
    for look in entry.looks:
        if len(json.dumps([*names, look])) < most // 6:
            names.append(look)
    drawn: Markup = drawing.card(entry, tiles, json.dumps(names, ensure_ascii=False), short=is_short)
    return drawn


def split_faults(text: str) -> tuple[str, list[str]]:
    """Part a reason that names several faults: what stands before them, and each of them; one fault stays a text."""
    faults = _NEXT_FAULT.split(text)
    if len(faults) == 1:
        return text, []
    return (faults[0], faults[1:]) if faults[0].endswith(": ") else ("", faults)


def _fitting(parts: Iterable[Markup], most: int) -> Iterator[Markup]:
    """The first parts, as many as have room in `most` characters."""
    for part in parts:
        most -= len(part)
        if most < 0:
            return
        yield part
