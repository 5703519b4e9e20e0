"""The people of the soak: each uploads one job in a manner of its own, and knows how it must end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

from PIL import Image
from soak_run import SoakRun

from fastfit_watch.domain.job import Job, Status
from fastfit_watch.domain.look import ImageFormat
from fastfit_watch.imaging.codec import encode_image

FINAL = {Status.DONE, Status.FAILED, Status.CANCELLED}


class Uploaded:
    """An upload that is whole at once and must be done: a manifest, a person, a garment and one to three looks."""

    ends = frozenset({Status.DONE})
    deed = "plain"
    most_looks = 3

    def __init__(self, inputs: Path, name: str, dice: random.Random) -> None:
        self.name, self.folder = name, inputs / name
        self.seed = dice.randrange(2**31)
        self.person = _picture(dice)
        self.looks = [
            f"{self.deed}-{number}" if number else self.deed for number in range(dice.randint(1, self.most_looks))
        ]
        self.ended = False
        self.seen = ""
        self._wrong = ""
        self._at_s = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """The first thing that is done: here, all of it."""
        hidden = self.folder.with_name(f".{self.name}")
        hidden.mkdir()
        for file, data in self.files().items():
            (hidden / file).write_bytes(data)
        hidden.rename(self.folder)

    def files(self) -> dict[str, bytes]:
        """What belongs into the folder, by name."""
        looks = "".join(f"  {look}: {{upper: shirt.jpg}}\n" for look in self.looks)
        manifest = f"people: [anna.jpg]\nseed: {self.seed}\nlooks:\n{looks}"
        return {"outfit.yaml": manifest.encode(), "anna.jpg": self.person, "shirt.jpg": self.person}

    def step(self, fixture: SoakRun) -> None:
        """Go on, and look whether it came to its end."""
        if self.ended:
            return
        age_s = time.monotonic() - self._at_s
        job = fixture.job(self.name) if age_s > 1 else None
        if job is None:
            self.go_on(fixture, None, age_s)
            return
        self.seen = f"{job.status.value}: {job.reason}"
        self.go_on(fixture, job, age_s)
        if self.is_over(job) and (report := self._report(fixture)).get("status") == job.status:
            self._check(fixture, job, report)
            self.ended = True

    def go_on(self, fixture: SoakRun, job: Job | None, age_s: float) -> None:
        """What this uploader does after the beginning; nothing here."""

    def is_over(self, job: Job) -> bool:
        """Is this the state to be judged?"""
        return job.status in FINAL

    def fault(self, fixture: SoakRun) -> str:
        """What is wrong at the end, or nothing."""
        return self._wrong if self.ended else f"never came to its end, last seen {self.seen or 'nowhere'}"

    def _report(self, fixture: SoakRun) -> dict[str, Any]:
        """The report; empty before there is one."""
        path = fixture.outputs / self.name / "report.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def _check(self, fixture: SoakRun, job: Job, report: dict[str, Any]) -> None:
        """Right state, one picture for each finished look, whole, and the one that an undisturbed run makes."""
        if job.status not in self.ends:
            self._wrong = f"ended as {self.seen}"
            return
        folder = fixture.outputs / self.name
        made = {f"{look['look']}.png" for look in report["looks"] if look["status"] == "done"}
        if {path.name for path in folder.glob("anna.*.png")} != made:
            self._wrong = "its pictures are not those of its report"
        if job.status is Status.DONE and len(made) != len(self.looks):
            self._wrong = f"{len(made)} of {len(self.looks)} pictures"
        digest = hashlib.sha256(self.person + str(self.seed).encode()).digest()
        colour = (digest[0], digest[1], digest[2])
        expected = encode_image(Image.new("RGB", (24, 32), colour), ImageFormat.PNG, {"seed": str(self.seed)})
        if any((folder / name).read_bytes() != expected for name in made):
            self._wrong = "a picture is not what an undisturbed run makes"


class Good(Uploaded):
    """Renamed in when complete."""


class Slow(Uploaded):
    """The manifest comes first, the pictures in pieces over some seconds, as a thin line would bring them."""

    def begin(self) -> None:
        self._part = 0.0
        self.folder.mkdir()
        (self.folder / "outfit.yaml").write_bytes(self.files()["outfit.yaml"])

    def go_on(self, fixture: SoakRun, job: Job | None, age_s: float) -> None:
        if self._part == 1.0:
            return  # nobody opens a file again after its end; in the place of a taken folder it would be a new upload
        part = self._part = min(1.0, age_s / 4)
        for name in ("anna.jpg", "shirt.jpg"):
            data = self.files()[name]
            path = self.folder / name
            size = path.stat().st_size if path.exists() else 0
            with contextlib.suppress(OSError), path.open("ab") as file:
                file.write(data[size : int(part * len(data))])


class Mended(Uploaded):
    """A text where the person should be; replaced once the daemon has said so."""

    def begin(self) -> None:
        self._mended = False
        self.folder.mkdir()
        for file, data in (self.files() | {"anna.jpg": b"<html>"}).items():
            (self.folder / file).write_bytes(data)

    def go_on(self, fixture: SoakRun, job: Job | None, age_s: float) -> None:
        if job is not None and job.status is Status.INVALID and not self._mended:
            (self.folder / "anna.jpg").write_bytes(self.person)
            self._mended = True


class Bad(Uploaded):
    """A manifest with a mistake; the uploader gives up and removes the folder."""

    ends = frozenset({Status.CANCELLED})

    def begin(self) -> None:
        self.folder.mkdir()
        for file, data in (self.files() | {"outfit.yaml": b"person: anna.jpg\nuper: shirt.jpg\n"}).items():
            (self.folder / file).write_bytes(data)

    def go_on(self, fixture: SoakRun, job: Job | None, age_s: float) -> None:
        if job is not None and job.status is Status.INVALID and self.folder.exists():
            shutil.rmtree(self.folder)


class Cancelled(Uploaded):
    """A file CANCEL, dropped once it is queued. What is made by then stays."""

    ends = frozenset({Status.CANCELLED, Status.DONE})
    deed = "slow"

    def go_on(self, fixture: SoakRun, job: Job | None, age_s: float) -> None:
        if job is not None and job.status in (Status.QUEUED, Status.RUNNING):
            with contextlib.suppress(OSError):
                (self.folder / "CANCEL").touch()


class Retried(Uploaded):
    """Nobody is found in the picture at the first try; a file RETRY makes it good."""

    deed = "input-once"
    most_looks = 1

    def go_on(self, fixture: SoakRun, job: Job | None, age_s: float) -> None:
        if job is not None and job.status is Status.FAILED:
            with contextlib.suppress(OSError):
                (self.folder / "RETRY").touch()

    def is_over(self, job: Job) -> bool:
        return job.status is Status.DONE


class Commanded(Retried):
    """The same by the command `retry`."""

    def go_on(self, fixture: SoakRun, job: Job | None, age_s: float) -> None:
        if job is not None and job.status is Status.FAILED:
            fixture.command("retry", self.name)


class Crashing(Uploaded):
    """Takes the engine down at every try, and is set aside."""

    ends = frozenset({Status.FAILED})
    deed = "crash"
    most_looks = 1


class Shaky(Uploaded):
    """Takes the engine down at the first try, and is made at the second."""

    deed = "crash-once"
    most_looks = 1


# The good ones are many, as in life.
KINDS: tuple[type[Uploaded], ...] = (
    *(Good,) * 6, *(Slow,) * 3, Mended, Mended, Bad, Cancelled, Retried, Commanded, Crashing, Shaky
)  # fmt: skip


def _picture(dice: random.Random) -> bytes:
    data = io.BytesIO()
    colour = (dice.randrange(256), dice.randrange(256), dice.randrange(256))
    Image.new("RGB", (96, 128), colour).save(data, "JPEG")
    return data.getvalue()
