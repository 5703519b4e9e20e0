"""The campaigns in short: the same programs, the same invariant, some minutes less."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CAMPAIGNS = Path(__file__).parents[1] / "campaigns"


def run(tmp_path: Path, program: str, *options: str) -> str:
    # Through a shell: a process begins with the peak memory of the one that started it, and the fuzzer limits its own.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, str(CAMPAIGNS / program), *options]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_crash_and_a_full_disk_at_the_steps_of_a_claim(tmp_path: Path) -> None:
    assert "0 broken" in run(tmp_path, "failpoints.py", "--only", "spool.rename.")


@pytest.mark.slow
def test_random_kills(tmp_path: Path) -> None:
    said = run(tmp_path, "kills.py", "--kills", "15", "--jobs", "4", "--folder", str(tmp_path / "storm"))
    assert "15 kills over 4 jobs" in said and "the invariant holds" in said
    # Interrupted campaigns go on where they were: here, at their end.
    assert "15 kills over 4 jobs" in run(
        tmp_path, "kills.py", "--kills", "15", "--jobs", "4", "--folder", str(tmp_path / "storm")
    )


@pytest.mark.slow
def test_some_disk_operations_fail_once(tmp_path: Path) -> None:
    assert "0 broken" in run(tmp_path, "disk_faults.py", "--first", "25", "--step", "130")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python or machine")
@pytest.mark.parametrize("target", ["manifest", "image"])
def test_half_a_minute_of_fuzzing(tmp_path: Path, target: str) -> None:
    assert "number_of_executed_units" in run(tmp_path, "fuzz.py", target, "-max_total_time=30", "-seed=3")
    assert not list(tmp_path.glob("*-*")), "a finding"
