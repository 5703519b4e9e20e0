"""A ledger with jobs and real pictures for the gallery's tests and its benchmark: filled in bulk, without an engine."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import ClaimIntent, Job, LookResult
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths

_OPTIONS = SamplingOptions(seed=7)
SECONDS = {"person": 0.41, "denoise": 9.5, "decode": 0.32}


class GalleryFixture:
    """Folders and a ledger. Pictures are drawn once and linked to: the gallery tells them apart by their digests."""

    def __init__(self, root: Path) -> None:
        self.config = Config(inputs=root / "inputs", outputs=root / "outputs", bundle="mini")
        SpoolPaths(self.config.inputs).root.mkdir(parents=True)
        self.ledger = Ledger(SpoolPaths(self.config.inputs).ledger)
        self._stock = root / "stock"
        self._stock.mkdir()
        self.person, self.garment, self.result = (
            self._draw("person.jpg", "rosybrown"),
            self._draw("garment.png", "steelblue"),
            self._draw("result.png", "seagreen"),
        )

    def claim(
        self,
        name: str,
        people: Sequence[str] = ("anna.jpg",),
        looks: Sequence[str] = ("casual", "gala"),
        garments: Sequence[str] = ("shirt.png", "jeans.png"),
        now_s: float = 1_700_000_000.0,
        options: SamplingOptions = _OPTIONS,
    ) -> Job:
        """A job that waits for the engine: everyone in every look, its uploads in the spool."""
        job = self.ledger.find_or_create_unclaimed(name, now_s)
        slots = dict(zip((Category.UPPER, Category.LOWER), garments, strict=False))
        wanted = [Look(person, look, slots, options) for person in people for look in looks]
        files = {file: hashlib.sha256(f"{name}/{file}".encode()).hexdigest() for file in (*people, *garments)}
        self.ledger.begin_claim(ClaimIntent(job.id, "outfit.yaml", wanted, files, "origin"), now_s)
        self.ledger.finish_claim(job.id, now_s)
        snapshot = self.snapshot(job.id)
        snapshot.mkdir(parents=True)
        for file in files:
            (snapshot / file).hardlink_to(self.person if file in people else self.garment)
        return self.job(job.id)

    def finish(self, job_id: str, key: str, now_s: float = 1_700_000_100.0) -> None:
        """Make one look's picture, as an engine would."""
        self.ledger.start_attempt(job_id, key, now_s - 10)
        folder = self.config.outputs / job_id
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.result, folder / f"{key}.png")
        digest = hashlib.sha256(f"{job_id}/{key}".encode()).hexdigest()
        versions = {"bundle": "mini 1", "torch": "2.13.0"}
        result = LookResult(f"{key}.png", digest, 1024, 768, SECONDS, None, "cpu", versions)
        self.ledger.finish_look(job_id, key, result, now_s)

    def complete(self, job_id: str, now_s: float = 1_700_000_100.0) -> Job:
        """Make every picture of a job."""
        for record in self.ledger.looks(job_id):
            self.finish(job_id, record.look.key, now_s)
        self.ledger.settle_job(job_id, now_s)
        return self.job(job_id)

    def multiply(self, job_id: str, count: int, *, with_folders: bool) -> None:
        """Copy a finished job `count` times, `spring.1`, `spring.2`... Without folders, their results are gone."""
        numbers = json.dumps(list(range(1, count + 1)))
        with self.ledger.database.writing("multiply") as db:
            for table, key in (("jobs", "id"), ("looks", "job_id")):
                columns = [row["name"] for row in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]
                columns = [column for column in columns if column != "serial"]
                made = {key: f"{table}.{key} || '.' || copies.value", "holds_name": "0"}
                db.execute(
                    f"INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608 - the ledger's own names
                    f" SELECT {', '.join(made.get(column, f'{table}.{column}') for column in columns)}"
                    f" FROM json_each(?) AS copies, {table} WHERE {table}.{key} = ?",
                    (numbers, job_id),
                )
        for number in range(1, count + 1) if with_folders else ():
            for folder in (self.config.outputs, SpoolPaths(self.config.inputs).jobs):
                for file in (path for path in (folder / job_id).rglob("*") if path.is_file()):
                    copy = folder / f"{job_id}.{number}" / file.relative_to(folder / job_id)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    if file.suffix != ".html":
                        copy.hardlink_to(file)

    def job(self, job_id: str) -> Job:
        """The job as it is now."""
        job = self.ledger.job(job_id)
        assert job is not None
        return job

    def snapshot(self, job_id: str) -> Path:
        """Where the job's uploads lie in the spool."""
        return SpoolPaths(self.config.inputs).snapshot(job_id)

    def read(self, *parts: str) -> str:
        """A page, as text."""
        return self.config.outputs.joinpath(*parts).read_text(encoding="utf-8")

    def _draw(self, name: str, colour: str) -> Path:
        path = self._stock / name
        picture = Image.linear_gradient("L").resize((768, 1024)).convert("RGB")
        picture.paste(colour, (200, 150, 560, 900))
        picture.save(path)
        return path
