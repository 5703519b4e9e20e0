"""Leave a real daemon alone for a while under all that people and machines do to it, and tell whether it stays flat.

    python tests/campaigns/soak.py --minutes 40 --folder /somewhere/with/room [--seed 1]

Uploads of every kind come all the time, orders are given, the engine and the daemon are killed, settings are read
again, logs rotate, and what is finished ages out of the spool. The engine process is played (`protocol_worker`).
Memory, open files, threads, watches and folders are sampled; at the end a line is fitted through each and its growth
printed. In the second part of the run only the engine is killed, so that one life of the daemon is long enough to fit.
Ends with 1 if anything grows, or if any upload ended otherwise than it had to.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from soak_run import SoakRun
from soak_uploads import KINDS, Uploaded

# The daemon is killed in the first part only; of its last life, the beginning is left out as warming up.
KILLING_PART, WARM_PART = 0.3, 0.25
SAMPLE_S = 5.0
DRAIN_S = 240.0
# What may be added over the fitted time, in the sample's unit, or as a part of its mean, whichever is more.
MAY_GROW = {
    "memory_mb": (4.0, 0.05),
    "open_files": (2.0, 0.0),
    "threads": (1.0, 0.0),
    "children": (1.0, 0.0),
    "watches": (0.5, 0.0),
    "spool_jobs": (20.0, 0.3),
    "outputs_jobs": (30.0, 0.3),
    "inputs_folders": (20.0, 0.3),
    "log_mb": (0.6, 0.3),
}
MOST_LEDGER_BYTES_A_JOB = 4096


def fitted_growth(times_s: list[float], values: list[float]) -> float:
    """How much a straight line through the samples rises from the first to the last (Theil-Sen: median of slopes)."""
    step = max(1, len(values) // 2)
    pairs = zip(range(len(values) - step), range(step, len(values)), strict=False)
    slopes = [(values[late] - values[early]) / (times_s[late] - times_s[early]) for early, late in pairs]
    return median(slopes) * (times_s[-1] - times_s[0]) if slopes else 0.0


def live(fixture: SoakRun, dice: random.Random, seconds: float, uploads: list[Uploaded]) -> None:
    """The time of the campaign: every turn does whatever is due."""
    began_s = time.monotonic()
    due = {"upload": 0.0, "sample": 0.0, "kill engine": 30.0, "end daemon": 45.0, "reload": 70.0, "pause": 50.0}
    while (spent_s := time.monotonic() - began_s) < seconds:
        for what in [what for what, at_s in due.items() if at_s <= spent_s]:
            if what == "upload":
                kind = dice.choice(KINDS)
                uploads.append(kind(fixture.inputs, f"{kind.__name__.lower()}-{len(uploads)}", dice))
                due[what] = spent_s + dice.uniform(0.3, 2.0)
            elif what == "sample":
                fixture.sample()
                due[what] = spent_s + SAMPLE_S
            elif what == "kill engine":
                fixture.kill_engine()
                due[what] = spent_s + dice.uniform(20, 60)
            elif what == "end daemon":
                if spent_s < KILLING_PART * seconds:
                    fixture.end_daemon(gently=dice.random() < 0.3)
                due[what] = spent_s + dice.uniform(20, 90)
            elif what == "reload":
                fixture.reload()
                due[what] = spent_s + dice.uniform(60, 120)
            else:
                fixture.command("pause")
                time.sleep(dice.uniform(0.2, 2.0))
                fixture.command("resume")
                due[what] = spent_s + dice.uniform(60, 180)
        for upload in uploads:
            upload.step(fixture)
        fixture.watch_over()
        time.sleep(0.1)


def drain(fixture: SoakRun, uploads: list[Uploaded]) -> None:
    """No more uploads: let what is there come to its end."""
    deadline_s = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline_s and any(not upload.ended for upload in uploads):
        for upload in uploads:
            upload.step(fixture)
        fixture.watch_over()
        time.sleep(0.2)


def judge_uploads(fixture: SoakRun, uploads: list[Uploaded]) -> list[str]:
    """What ended otherwise than it had to."""
    faults = [f"{upload.name}: {fault}" for upload in uploads if (fault := upload.fault(fixture))]
    jobs = {job.name for job in fixture.jobs()}
    return faults + [f"{name} is in the ledger, and nobody uploaded it" for name in jobs - {up.name for up in uploads}]


def judge_growth(fixture: SoakRun) -> list[str]:
    """Print a line for each quantity; returns those that grew."""
    last = [sample for sample in fixture.samples if sample.pid == fixture.samples[-1].pid]
    fitted = last[int(WARM_PART * len(last)) :]
    times_s = [sample.at_s for sample in fitted]
    minutes = (times_s[-1] - times_s[0]) / 60
    print(f"fitted over the last {minutes:.1f} minutes of one life of the daemon, {len(fitted)} samples:")
    grown = []
    for name, (units, part) in MAY_GROW.items():
        values = [sample.values[name] for sample in fitted]
        growth, allowed = fitted_growth(times_s, values), max(units, part * mean(values))
        verdict = "flat" if growth <= allowed else "GROWS"
        print(
            f"  {name:15} mean {mean(values):8.1f}  largest {max(values):8.1f}  growth {growth:+8.2f}"
            f"  ({growth / minutes * 60:+8.2f} an hour; allowed {allowed:.1f}) {verdict}"
        )
        grown += [name] if growth > allowed else []
    jobs = fitted[-1].values["jobs"] - fitted[0].values["jobs"]
    a_job = fitted_growth(times_s, [sample.values["ledger_bytes"] for sample in fitted]) / max(1, jobs)
    print(f"  ledger: {fitted[-1].values['ledger_bytes'] / 1e6:.2f} MB, {a_job:.0f} bytes for each new job")
    return grown + (["ledger"] if a_job > MOST_LEDGER_BYTES_A_JOB else [])


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and tell whether all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to work")
    chosen = parser.parse_args(arguments)
    home = Path(tempfile.mkdtemp(prefix="soak-", dir=chosen.folder))
    machine = (
        f"{platform.node()}, {platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    )
    print(f"machine: {machine}; Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}")
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}, {chosen.minutes:g} minutes, seed {chosen.seed}", flush=True)
    fixture, uploads = SoakRun(home), []  # type: tuple[SoakRun, list[Uploaded]]
    fixture.start()
    try:
        live(fixture, random.Random(chosen.seed), chosen.minutes * 60, uploads)
        drain(fixture, uploads)
        faults = judge_uploads(fixture, uploads)
    finally:
        fixture.end()
    kinds = {kind.__name__.lower(): sum(type(upload) is kind for upload in uploads) for kind in KINDS}
    print(f"uploads: {len(uploads)} ({', '.join(f'{count} {name}' for name, count in kinds.items())})")
    print(
        f"engine killed {fixture.engine_kills} times, daemon killed {fixture.kills} and stopped {fixture.stops} times,"
        f" settings read again {fixture.reloads} times, logs rotated {fixture.rotations()} times"
    )
    lives = sum(early.pid != late.pid for early, late in pairwise(fixture.samples)) + 1
    print(f"{len(fixture.samples)} samples in {lives} lives of the daemon")
    grown = judge_growth(fixture)
    for fault in faults[:20]:
        print(f"wrong: {fault}")
    if faults or grown:
        print(f"FAILED: {len(faults)} uploads ended wrong; grows: {', '.join(grown) or 'nothing'}; kept: {home}")
        return 1
    shutil.rmtree(home)
    print("every upload ended as it had to, and nothing grows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
