"""What is known of an upload and of each look in it. Imports only `look`, `memory_ladder` and the standard library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from fastfit_watch.domain.look import Look
from fastfit_watch.domain.memory_ladder import Rung


class Status(StrEnum):
    """State of a job. Every job that was ever seen has exactly one, with a reason a person can read.

    waiting: the upload is not complete yet. stalled: not complete, and still for a long time; any change revives it.
    invalid: the upload is at fault; a change revives it. queued, running: claimed. done, failed, cancelled: final.
    """

    WAITING = "waiting"
    STALLED = "stalled"
    INVALID = "invalid"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """The folder is still in `inputs/`, not claimed."""
        return self in (Status.WAITING, Status.STALLED, Status.INVALID)

    @property
    def is_final(self) -> bool:
        """No more work will be done unless someone asks for a retry."""
        return self in (Status.DONE, Status.FAILED, Status.CANCELLED)


class LookStatus(StrEnum):
    """State of one look of a claimed job. withheld: made, but the content filter kept it back for review."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WITHHELD = "withheld"


class Priority(IntEnum):
    """How early a job is served.

    urgent: before everyone; only who runs the machine can say so. high: before the uploader's other jobs. low: when
    nothing else waits.
    """

    URGENT = 2
    HIGH = 1
    NORMAL = 0
    LOW = -1

    @property
    def word(self) -> str:
        """`high`, as people write it."""
        return self.name.lower()


@dataclass(frozen=True)
class LookResult:
    """One finished picture. `seconds` maps a stage to wall seconds; `peak_vram_bytes` is None on the CPU.

    rung: of the memory ladder, on which it was made. shortages: rung -> stage in which that rung ran out of memory.
    cache: what was found in a cache and what not, as in `person.hit` and `garment.miss` -> how often.
    """

    file: str
    sha256: str
    height: int
    width: int
    seconds: Mapping[str, float]
    peak_vram_bytes: int | None
    device: str
    versions: Mapping[str, str] = field(default_factory=dict)
    rung: str = Rung.FULL.value
    shortages: Mapping[str, str] = field(default_factory=dict)
    cache: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LookRecord:
    """One look in the ledger. `look.options.seed` is always set. Times are Unix seconds.

    attempts: how often it was handed to an engine. deaths: how many engine processes it took down.
    not_before_s: earliest next attempt (backoff).
    """

    job_id: str
    position: int
    look: Look
    status: LookStatus
    reason: str = ""
    attempts: int = 0
    deaths: int = 0
    not_before_s: float = 0.0
    result: LookResult | None = None


@dataclass(frozen=True)
class Job:
    """One upload, from its first sight on. `id` is the folder's name, with `-2`, `-3`... when a name comes again.

    files: name -> sha256 of every file the job uses (empty until claimed). manifest: the manifest's file name.
    has_upload, has_results: False once retention removed its files in the spool, or its folder in outputs/.
    """

    id: str
    name: str
    status: Status
    reason: str
    first_seen_s: float
    changed_s: float
    claimed_s: float | None = None
    started_s: float | None = None
    finished_s: float | None = None
    manifest: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    has_upload: bool = True
    has_results: bool = True


@dataclass(frozen=True)
class ClaimIntent:
    """What is recorded of an upload before it is claimed.

    looks: every picture to make, each with its seed set. files: name -> sha256 of the verified copies.
    origin: digest of the folder's fingerprint, to know this very content again. uploader: whose folder it is.
    priority: as asked for in the manifest; one that was requested before weighs more.
    """

    job_id: str
    manifest: str
    looks: Sequence[Look]
    files: Mapping[str, str]
    origin: str
    uploader: str = ""
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True)
class Tally:
    """Looks of one state: how many, and how many denoising steps they have together."""

    looks: int = 0
    steps: int = 0


@dataclass(frozen=True)
class LookProgress:
    """How far the look in hand is: `step` of `steps` in `stage`. eta_s: seconds until its job is made, if known.

    rung: of the memory ladder, on which it is being made.
    """

    look: str
    stage: str
    step: int
    steps: int
    eta_s: float | None = None
    rung: str = Rung.FULL.value
