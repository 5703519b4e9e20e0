"""Cut the power at every sync of a job, and start the daemon on what the disk may hold then; then check everything.

    python tests/campaigns/power_cuts.py                    at every sync, before and in all manners
    python tests/campaigns/power_cuts.py --only 17.names    one state again
    python tests/campaigns/power_cuts.py --step 9 --seed 3  every ninth state, beginning with the third

A run is recorded (`recording.py`): every write with its data, every sync, rename and removal, of all processes. Just
before each sync returns, four states are built: all that was not synced is lost; all names are there, but files hold
only what was synced; all is there, but half of the last write; all is there. SQLite's files follow the same record.

What it is not: this works on files, not on blocks. A rename is atomic, as on every journaling file system, and durable
with the sync of either folder; what was not synced is lost or kept as a whole, but for the last write. The ledger's
shared memory (-shm) is not on the disk. Files are new ones, with other inodes, so the ledger is told the inode of the
empty folder that a claim leaves behind. Ends with 1 if the invariant breaks. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from recording import MANNERS, Recorder
from storm import Box, unbroken, violations

PICTURES = 2
PLACES = ("inputs", "outputs")
State = Mapping[str, bytes | None]


def record(root: Path) -> tuple[Recorder, list[tuple[str, State]], dict[int, str]]:
    """Record an unbroken run; returns all different states that it may leave, each with its name, and old inodes."""
    box = Box(root, PICTURES)
    box.upload(0)
    place = root.with_name(root.name + ".recording")
    place.mkdir()
    recorder = Recorder(place, root)
    daemon = box.start("--once", **recorder.environment)
    assert daemon.wait(120) == 0, box.words()
    records = recorder.records()
    made = {each.inode: each.name for each in records if each.kind == "m"}
    return recorder, list(_states(recorder)), made


def _states(recorder: Recorder) -> Iterator[tuple[str, State]]:
    seen: set[str] = set()
    number = 0
    for each in recorder.records():
        if each.kind == "s":
            number += 1
            for manner in MANNERS:
                state = recorder.disk.left(manner)
                digest = hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()
                if digest not in seen:
                    seen.add(digest)
                    yield f"{number}.{manner}", state
        recorder.disk.take(each)


def put(box: Box, state: State, made: Mapping[int, str]) -> None:
    """Make a box's folders what the disk held."""
    for place in PLACES:
        shutil.rmtree(box.root / place)
    for path, content in sorted(state.items()):
        if path.split("/")[0] not in PLACES or path.endswith("-shm"):
            continue
        target = box.root / path
        if content is None:
            target.mkdir(mode=0o700 if ".spool" in path else 0o755)
        else:
            target.write_bytes(content)
    for place in PLACES:
        (box.root / place).mkdir(exist_ok=True)
    _renumber(box, made)


def _renumber(box: Box, made: Mapping[int, str]) -> None:
    """Tell the ledger the inode of the empty folder in `inputs/`, which is another one than it was."""
    path = box.inputs / ".spool" / "ledger.db"
    if not path.exists():
        return
    with closing(sqlite3.connect(path)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
            return
        for serial, name, ours in db.execute("SELECT serial, name, ours FROM jobs WHERE ours IS NOT NULL").fetchall():
            folder = box.inputs / name
            if ours in made and folder.is_dir():
                db.execute("UPDATE jobs SET ours = ? WHERE serial = ?", (folder.stat().st_ino, serial))
        db.commit()


def try_state(root: Path, state: State, made: Mapping[int, str], expected: dict[str, dict[str, bytes]]) -> list[str]:
    """Start the daemon on one state; what does not hold in the end."""
    box = Box(root, PICTURES)
    box.uploaded.append("j0")
    try:
        put(box, state, made)
        box.drain()
    except (AssertionError, sqlite3.Error) as failure:
        return [str(failure)]
    return violations(box, expected)


def main() -> int:
    """Run the campaign and print its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="one state by its name, such as 17.names")
    parser.add_argument("--step", type=int, default=1, help="try every n-th state")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    options = parser.parse_args()
    began_s, broken, tried = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="power-cuts-") as home:
        expected = unbroken(Path(home) / "calm", 1, PICTURES)
        recorder, states, made = record(Path(home) / "recorded")
        changes = recorder.records()
        syncs = sum(each.kind == "s" for each in changes)
        print(f"{len(changes)} changes and among them {syncs} syncs: {len(states)} different states", flush=True)
        for name, state in states[options.seed % options.step :: options.step]:
            if options.only not in ("", name):
                continue
            tried += 1
            faults = try_state(Path(home) / name, state, made, expected)
            shutil.rmtree(Path(home) / name)
            if faults:
                broken += 1
                print(f"BROKEN {name}\n  " + "\n  ".join(faults), flush=True)
    print(f"{tried} power cuts, {broken} broken", flush=True)
    print(f"{time.monotonic() - began_s:.0f} s on {platform.machine()}, Python {platform.python_version()}")
    return 1 if broken or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
