"""The `demo` command: draws a job, uploads it, and runs the daemon on it with the `mini` bundle."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from fastfit_watch.cli.progress_bar import WorkProgress
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError, FastFitError
from fastfit_watch.domain.job import Job, LookStatus, Status
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths
from fastfit_watch.system.atomic_write import make_folder

_UPLOAD = "demo"
_PEOPLE = {"anna": 23, "ben": 17, "chloe": 19}  # file name -> seed of the drawing
_GARMENTS = {
    "tee": ("upper", 105),
    "knit": ("upper", 1685),
    "jeans": ("lower", 280),
    "skirt": ("lower", 136),
    "gown": ("dress", 309),
    "sundress": ("dress", 166),
    "sneakers": ("shoe", 132),
    "pumps": ("shoe", 103),
    "satchel": ("bag", 110),
    "clutch": ("bag", 133),
}
_MANIFEST = """\
# Every person wears every look: three people, four looks, twelve pictures.
people: ["*.jpg"]
seed: 7
looks:
  casual: {upper: tee.png, lower: jeans.png, shoe: sneakers.png, bag: satchel.png}
  city:   {upper: knit.png, lower: skirt.png, shoe: pumps.png, bag: clutch.png}
  gala:   {dress: gown.png, shoe: pumps.png, bag: clutch.png}
  garden: {dress: sundress.png, shoe: sneakers.png, bag: satchel.png}
"""
_POLL_S = 0.5


def run_demo(config: Config) -> int:
    """Draw, upload and dress the demo job; returns the daemon's exit code."""
    _refuse_real_uploads(config)
    print("The mini bundle dresses drawn figures, not photographs: it shows the whole system at work in small.")
    upload(config.inputs)
    command = [sys.executable, "-m", "fastfit_watch", "run", "--once", "--bundle", "mini"]
    command += ["--inputs", str(config.inputs), "--outputs", str(config.outputs)]
    make_folder(config.outputs)
    log = config.outputs / "demo.log"
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
        job = _follow(daemon, config)
    if daemon.returncode or job is None or job.status is not Status.DONE:
        reason = f"{job.status}: {job.reason}" if job else "the daemon ended before it saw the upload"
        raise FastFitError(f"The demo did not finish ({reason}).", hint=f"The daemon's words are in {log}.")
    log.unlink()
    folder = config.outputs / job.id
    print(f"Pictures:      {folder}/*.png")
    print(f"Contact sheet: {folder / 'sheet.jpg'}")
    print(f"Report:        {folder / 'report.json'}")
    print(f"Gallery:       {config.outputs / 'index.html'}")
    return 0


def upload(inputs: Path) -> Path:
    """Draw the demo job beside its place and rename it in, as a careful uploader would; returns the folder."""
    from PIL import Image

    from fastfit_watch.domain.look import Category
    from fastfit_watch.mini.drawing.figures import draw_garment, draw_person

    hidden = inputs / f".{_UPLOAD}.uploading"
    hidden.mkdir(parents=True, exist_ok=True)
    for name, seed in _PEOPLE.items():
        Image.fromarray(draw_person(seed)).save(hidden / f"{name}.jpg", quality=92)
    for name, (slot, seed) in _GARMENTS.items():
        Image.fromarray(draw_garment(seed, Category(slot), (512, 384))).save(hidden / f"{name}.png")
    (hidden / "outfit.yaml").write_text(_MANIFEST, encoding="utf-8")
    return hidden.rename(inputs / _UPLOAD)


def _refuse_real_uploads(config: Config) -> None:
    """The mini bundle must never dress somebody's real uploads by accident."""
    present = sorted(path.name for path in config.inputs.glob("[!.]*") if path.is_dir())
    ledger_file = SpoolPaths(config.inputs).ledger
    if ledger_file.exists():
        ledger = Ledger(ledger_file, read_only=True)
        present += [job.id for job in ledger.jobs() if job.status in (Status.QUEUED, Status.RUNNING)]
        ledger.close()
    if present:
        raise ConfigError(
            f"{config.inputs} holds other uploads ({', '.join(present[:3])}): the mini bundle is not for them.",
            hint="Run the demo with another folder: fastfit-watch demo --inputs demo-inputs --outputs demo-outputs",
        )


def _follow(daemon: subprocess.Popen[bytes], config: Config) -> Job | None:
    """Show how far the demo is until the daemon ends; returns the demo's job."""
    job: Job | None = None
    ledger: Ledger | None = None
    path = SpoolPaths(config.inputs).ledger
    with WorkProgress("demo") as progress:
        while True:
            ended = daemon.poll() is not None
            if ledger is None and path.exists():
                ledger = Ledger(path)
            if ledger is not None:
                job = next((each for each in reversed(ledger.jobs()) if each.name == _UPLOAD), None)
                _show(progress, ledger, job)
            if ended:
                if ledger is not None:
                    ledger.close()
                return job
            time.sleep(_POLL_S)


def _show(progress: WorkProgress, ledger: Ledger, job: Job | None) -> None:
    looks = ledger.looks(job.id) if job is not None else []
    if job is None or not looks:
        progress.update(0, None, f"{job.status.value}: {job.reason}" if job else "waiting for the upload to be found")
        return
    made = [record.look.key for record in looks if record.status is LookStatus.DONE]
    newest = f"newest {made[-1]}" if made else "loading the engine"
    progress.update(len(made), len(looks), f"{len(made)} of {len(looks)} pictures, {newest}")
