"""Everything one daemon has for its intake, on real folders, with a clock that the test moves."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image, UnidentifiedImageError

from fastfit_watch.config.settings import Config, WatchSettings
from fastfit_watch.domain.job import Job, LookResult, Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.intake.claim import UploadClaimer
from fastfit_watch.intake.loop import IntakeLoop
from fastfit_watch.intake.validation import PictureInspector
from fastfit_watch.intake.watcher import Doorbell, Watcher
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import Spool, SpoolPaths

MANIFEST = b"person: anna.jpg\nupper: shirt.jpg\n"
RESULT = LookResult("x.png", "00" * 32, 4, 3, {}, None, "cpu")
SETTLE_S = 5.0


def picture(seed: int = 0) -> bytes:
    """A small JPEG, different for every seed."""
    data = io.BytesIO()
    Image.linear_gradient("L").rotate(seed).resize((48, 64)).convert("RGB").save(data, "JPEG")
    return data.getvalue()


FILES = {"outfit.yaml": MANIFEST, "anna.jpg": picture(1), "shirt.jpg": picture(2)}


class Decoder:
    """Decodes here what the real decoder decodes in a process of its own; keeps what it was asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.proven: set[str] = set()

    def inspect(
        self, folder: Path, names: Sequence[str], on_picture: Callable[[], None], proven: Collection[str] = ()
    ) -> Mapping[str, object]:
        self.seen += names
        self.proven |= {name for name in names if name in proven}
        found = {}
        for name in names:
            found[name] = self._look_at(folder / name)
            on_picture()
        return found

    def _look_at(self, path: Path) -> object:
        try:
            with Image.open(path) as image:
                image.load()
                return image.size
        except UnidentifiedImageError:
            return f"{path.name} is not a JPEG, PNG, WebP or AVIF picture."
        except OSError:
            return f"{path.name} ends early."


@dataclass
class IntakeFixture:
    """Everything one daemon has for its intake, with a clock that the test moves."""

    inputs: Path
    watch: WatchSettings = field(default_factory=WatchSettings)
    limits: Limits = field(default_factory=lambda: Limits(min_free_bytes=0))
    events: Literal["auto", "poll"] = "poll"
    now_s: float = 1_000.0
    inspector: PictureInspector | None = None

    @classmethod
    @contextmanager
    def at(cls, inputs: Path, inspector: PictureInspector | None = None) -> Iterator[IntakeFixture]:
        """Make a new folder and intake on it, closed at the end."""
        inputs.mkdir()
        fixture = cls(inputs, inspector=inspector)
        fixture.open()
        try:
            yield fixture
        finally:
            fixture.close()

    def open(self) -> None:
        self.config = Config(inputs=self.inputs, watch=self.watch, limits=self.limits)
        self.spool = Spool(SpoolPaths(self.inputs), self.limits)
        self.spool.lock()
        self.ledger = Ledger(self.spool.paths.ledger)
        self.decoder = Decoder()
        self.claimer = UploadClaimer(self.spool, self.limits)
        self.doorbell = Doorbell()
        self.watcher = Watcher(self.inputs, self.doorbell, self.events)
        self.told: list[tuple[str, Status, str]] = []
        self.intake = IntakeLoop(
            self.config,
            self.ledger,
            self.claimer,
            self.inspector or self.decoder,
            self.watcher,
            self.doorbell,
            on_change=self._hear,
        )

    def _hear(self, job: Job) -> None:
        self.told.append((job.id, job.status, job.reason))

    def close(self) -> None:
        self.ledger.close()
        self.spool.unlock()

    def restart(self) -> None:
        self.close()
        self.open()

    def step(self, after_s: float = 0.0) -> float:
        self.now_s += after_s
        return self.intake.step(self.now_s)

    def settle(self) -> None:
        self.step()
        self.step(SETTLE_S)

    def upload(self, name: str = "spring", files: Mapping[str, bytes] = FILES) -> Path:
        folder = self.inputs / name
        folder.mkdir(exist_ok=True)
        for file, data in files.items():
            (folder / file).write_bytes(data)
        return folder

    def job(self, job_id: str = "spring") -> Job:
        job = self.ledger.job(job_id)
        assert job is not None
        return job

    def said(self, job_id: str = "spring") -> str:
        job = self.job(job_id)
        return f"{job.status.value}: {job.reason}"

    def finish(self, job_id: str = "spring") -> None:
        """Do what dispatcher and worker do, in no time."""
        for record in self.ledger.looks(job_id):
            if self.ledger.start_attempt(job_id, record.look.key, self.now_s) is not None:
                self.ledger.finish_look(job_id, record.look.key, RESULT, self.now_s)
        self.ledger.settle_job(job_id, self.now_s)
