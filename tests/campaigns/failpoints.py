"""Every named failpoint, every way to fail: killed there, a full disk there, a failing disk there; then a new start.

    python tests/campaigns/failpoints.py                 all of them, at their first, second and last visit
    python tests/campaigns/failpoints.py --only spool.   those whose name begins so

The names are learnt from an unbroken run, so that a new failpoint joins by itself. Ends with 1 if the invariant breaks.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from storm import Box, unbroken, violations

from fastfit_watch.system.failpoints import LIST, VARIABLE

JOBS = 2
MANNERS = ("kill", "EIO", "ENOSPC")
FAULTY_S = 1.5  # how long a daemon lives with an error that stays


def visits(root: Path) -> Counter[str]:
    """Every failpoint that two jobs pass, and how often."""
    box = Box(root)
    names = root / "names"
    for number in range(JOBS):
        box.upload(number)
    daemon = box.start("--once", **{VARIABLE: f"{LIST}{names}"})
    assert daemon.wait(60) == 0, box.words()
    return Counter(names.read_text(encoding="utf-8").split())


def cases(counts: Counter[str], only: str) -> Iterator[tuple[str, int, str]]:
    """Name, visit and manner of every case."""
    for name, count in sorted(counts.items()):
        if name.startswith(only):
            for visit in sorted({1, 2, count} & set(range(1, count + 1))):
                for manner in MANNERS:
                    yield name, visit, manner


def try_case(root: Path, name: str, visit: int, manner: str, expected: dict[str, dict[str, bytes]]) -> list[str]:
    """Fail there, start again without the fault, and return what does not hold."""
    box = Box(root)
    for number in range(JOBS):
        box.upload(number)
    wanted = f"{name}:{visit}" + ("" if manner == "kill" else f":{manner}")
    daemon = box.start(**{VARIABLE: wanted})
    deadline_s = time.monotonic() + FAULTY_S
    while time.monotonic() < deadline_s and daemon.poll() is None:
        time.sleep(0.02)
    # A fault in a child leaves the daemon running, and an error that stays keeps it waiting.
    box.kill()
    try:
        box.drain()
    except AssertionError as error:
        return [str(error)]
    return violations(box, expected)


def main() -> int:
    """Run the campaign and print its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names that begin so")
    options = parser.parse_args()
    began_s, broken, tried = time.monotonic(), 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="failpoints-") as home:
        expected = unbroken(Path(home) / "calm", JOBS)
        counts = visits(Path(home) / "visits")
        for number, (name, visit, manner) in enumerate(cases(counts, options.only)):
            tried[manner] += 1
            faults = try_case(Path(home) / str(number), name, visit, manner, expected)
            if faults:
                broken += 1
                print(f"BROKEN {name}:{visit} {manner}\n  " + "\n  ".join(faults), flush=True)
    print(f"{len(counts)} failpoints, {sum(tried.values())} cases ({dict(tried)}), {broken} broken", flush=True)
    print(f"{time.monotonic() - began_s:.0f} s on {platform.machine()}, Python {platform.python_version()}")
    return 1 if broken or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
