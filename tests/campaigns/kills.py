"""Kill the daemon, its engine or its decoder with -9 at random moments, while jobs keep coming; then check everything.

    python tests/campaigns/kills.py --kills 1000 --jobs 200 --seed 1 --folder /somewhere

Run it again with the same folder and seed to go on where it was interrupted. Ends with 1 if the invariant breaks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from storm import Box, unbroken, violations

PICTURES = 3
VICTIMS = ("daemon", "daemon", "engine", "decoder")
PARTS = {"engine": "protocol_worker", "decoder": "fastfit_watch.intake.decoder"}


def strike(box: Box, victim: str) -> bool:
    """Kill one process; False if there is none of that kind just now."""
    assert box.daemon is not None
    if victim == "daemon":
        box.daemon.kill()
        box.daemon.wait()
        return True
    for child in psutil.Process(box.daemon.pid).children():
        try:
            if any(PARTS[victim] in word for word in child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
                return True
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return False


def run(folder: Path, kills: int, jobs: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Strike until all kills are done; returns how many hit whom, and what does not hold in the end."""
    expected = unbroken(folder / f"calm{time.time_ns()}", jobs, PICTURES)
    state_file = folder / "state.json"
    state: dict[str, Any] = json.loads(state_file.read_text()) if state_file.exists() else {"kills": 0, "hits": {}}
    box = Box(folder / "stormy", PICTURES) if not state_file.exists() else resumed(folder / "stormy", jobs)
    hits = Counter[str](state["hits"])
    inodes: dict[Path, int] = {}
    faults: list[str] = []
    box.start()
    for number in range(state["kills"], kills):
        chance = random.Random(f"{seed}.{number}")
        while len(box.uploaded) < jobs and len(box.uploaded) * kills <= number * jobs:
            box.upload(len(box.uploaded))
        # Mostly while it works; now and then long enough to get through.
        time.sleep(chance.choice((chance.uniform(0, 0.2), chance.uniform(0.2, 0.9), chance.uniform(0.9, 1.6))))
        victim = chance.choice(VICTIMS)
        if not strike(box, victim):
            victim = "daemon"
            strike(box, victim)
        hits[victim] += 1
        made = {path: path.stat().st_ino for path in box.outputs.glob("*/anna.*.png")}
        again = [path for path, inode in made.items() if inodes.setdefault(path, inode) != inode]
        faults += [f"kill {number}: {path.name} of {path.parent.name} was made again" for path in again]
        inodes.update(made)
        if victim == "daemon":
            box.start()
        state_file.write_text(json.dumps({"kills": number + 1, "hits": hits}))
    while len(box.uploaded) < jobs:
        box.upload(len(box.uploaded))
    box.kill()
    box.drain()
    return hits, faults + violations(box, expected)


def resumed(root: Path, jobs: int) -> Box:
    """The box of an interrupted run."""
    box = Box.__new__(Box)
    box.root, box.pictures, box.daemon = root, PICTURES, None
    box.inputs, box.outputs, box.notes = root / "inputs", root / "outputs", root / "notes"
    taken = {path.name for path in (*box.outputs.iterdir(), *box.inputs.iterdir())}
    box.uploaded = [f"j{number}" for number in range(jobs) if f"j{number}" in taken]
    return box


def main() -> int:
    """Run the campaign and print its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept, to go on later (default: a temporary one)")
    options = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        hits, faults = run(folder, options.kills, options.jobs, options.seed)
    print(
        f"{sum(hits.values())} kills over {options.jobs} jobs of {PICTURES} pictures, seed {options.seed}: {dict(hits)}"
    )
    print("\n".join(faults) or "the invariant holds: every picture is there once, byte-equal to an unbroken run")
    print(f"{time.monotonic() - began_s:.0f} s on {platform.machine()}, Python {platform.python_version()}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
