"""Take each guard of the queue and of the models out, in a copy of this tree, and see that the test named for it fails.

    python tests/campaigns/guards.py                 all of them: prints the table of tests/campaigns/results/guards.txt
    python tests/campaigns/guards.py --only hostile  those of one part, or with this word in their name

A guard is one exact text in one file and what is put in its place. First every named test must pass in the copy as it
is. Ends with 1 if a text is not found, a test does not pass at first, or one passes without its guard.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from guard import Guard
from guards_crash import CRASH
from guards_engines import FAIR, SUPERVISION
from guards_intake import COMPLETE, HOSTILE
from guards_memory import MEMORY
from guards_models import HUB, WEIGHTS

ROOT = Path(__file__).parents[2]
COPIED = ("fastfit_watch", "tests", "configs", "pyproject.toml")
LIMIT_S = 180.0
FAILED = 1  # pytest's own: tests ran, and some failed

GUARDS = (*COMPLETE, *CRASH, *SUPERVISION, *HOSTILE, *FAIR, *HUB, *WEIGHTS, *MEMORY)


def run_tests(tree: Path, *tests: str) -> int:
    """Run tests in a tree, with its own package; pytest's exit code, -1 if they hang."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    command += [f"tests/{test}" for test in dict.fromkeys(tests)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S * (1 if len(tests) == 1 else 5),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1
    if len(tests) > 1 and done.returncode:
        print(done.stdout[-3000:])
    return done.returncode


def try_guard(tree: Path, guard: Guard) -> str:
    """Take one guard out and put it back; what its test said."""
    path = tree / "fastfit_watch" / guard.file
    source = path.read_text(encoding="utf-8")
    if source.count(guard.text) != 1:
        return f"NOT FOUND ({source.count(guard.text)} times)"
    path.write_text(source.replace(guard.text, guard.instead), encoding="utf-8")
    try:
        code = run_tests(tree, guard.test)
    finally:
        path.write_text(source, encoding="utf-8")
    return {FAILED: "fails", -1: "hangs", 0: "PASSES"}.get(code, f"PYTEST ENDED WITH {code}")


def main() -> int:
    """Try the guards and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="guards whose part or name has this word")
    options = parser.parse_args()
    chosen = [guard for guard in GUARDS if options.only in f"{guard.part} {guard.name}"]
    began_s, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="guards-") as home:
        tree = Path(home)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, tree / name)
        if not chosen or run_tests(tree, *(guard.test for guard in chosen)) != 0:
            print("the tests do not pass with all guards in place")
            return 1
        for guard in chosen:
            said = try_guard(tree, guard)
            wrong += said not in ("fails", "hangs")
            print(f"{guard.part:13} {guard.name:52} {said:8} {guard.test}", flush=True)
    print(f"{len(chosen)} guards taken out, {len(chosen) - wrong} noticed, {wrong} not")
    print(f"{time.monotonic() - began_s:.0f} s on {platform.machine()}, Python {platform.python_version()}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
