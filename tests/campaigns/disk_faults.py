"""Let every single disk operation of a job fail once: the first, the second, … until a run has fewer.

    python tests/campaigns/disk_faults.py                    each fails with one of ENOSPC, EIO and EDQUOT, in turn
    python tests/campaigns/disk_faults.py --first 40 --step 7    the 40th, the 47th, …

The daemon must get over it by itself: pause, go on, blame no job. One that ended is started again, as a service would
be. Ends with 1 if the invariant breaks. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import errno
import platform
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from storm import Box, unbroken, violations

SOURCE = Path(__file__).with_name("faulty_disk.c")
ERRORS = ("ENOSPC", "EIO", "EDQUOT")
PICTURES = 4
STARTS = 3


def build(folder: Path) -> Path:
    """Compile the faulty disk."""
    library = folder / "faulty_disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def operations_after(box: Box, library: Path, number: int, error: str) -> int:
    """Run a box whose `number`-th operation fails, until its job is final; returns how many operations there were."""
    state = box.root.with_name(box.root.name + ".state")
    state.write_bytes(struct.pack("qq", 0, number))
    environment = {
        "LD_PRELOAD": str(library),
        "FAULTY_ROOT": str(box.root),
        "FAULTY_STATE": str(state),
        "FAULTY_ERRNO": str(getattr(errno, error)),
    }
    for _ in range(STARTS):
        box.start(**environment)
        if box.wait_final(20):
            break
        assert box.daemon is not None
        if box.daemon.poll() is None:
            break
    time.sleep(0.3)  # the last pages
    box.kill(15)
    return int(struct.unpack("qq", state.read_bytes())[0])


def try_number(root: Path, library: Path, number: int, error: str, expected: dict[str, dict[str, bytes]]) -> list[str]:
    """One run; what does not hold."""
    box = Box(root, PICTURES)
    box.upload(0)
    count = operations_after(box, library, number, error)
    if count < number:
        return [f"only {count} operations"]
    missing = [] if box.wait_final(0.1) else [f"it did not get over it by itself:\n{box.words()}"]
    try:
        box.drain()  # what is tidied up at the next start
    except AssertionError as failure:
        return [*missing, str(failure)]
    return missing + violations(box, expected)


def main() -> int:
    """Run the campaign and print its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--step", type=int, default=1)
    options = parser.parse_args()
    began_s, broken, tried = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="disk-faults-") as home:
        library = build(Path(home))
        expected = unbroken(Path(home) / "calm", 1, PICTURES)
        counting = Box(Path(home) / "counting", PICTURES)
        counting.upload(0)
        count = operations_after(counting, library, 0, "EIO")
        print(f"an unbroken run has {count} operations", flush=True)
        for number in range(options.first, count + 1, options.step):
            error = ERRORS[number % len(ERRORS)]
            faults = try_number(Path(home) / str(number), library, number, error, expected)
            if faults and faults[0].startswith("only "):
                break  # runs differ by some operations: this was the last
            tried += 1
            if faults:
                broken += 1
                print(f"BROKEN {number} {error}\n  " + "\n  ".join(faults), flush=True)
    print(f"{tried} operations failed once each ({', '.join(ERRORS)} in turn), {broken} broken", flush=True)
    print(f"{time.monotonic() - began_s:.0f} s on {platform.machine()}, Python {platform.python_version()}")
    return 1 if broken or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
