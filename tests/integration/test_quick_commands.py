"""The commands that people type while they wait for something else answer at once.

Seconds differ between machines, and on one machine with what else it does. So a command is compared with what Python
takes in the same minutes to load yaml, pydantic and loguru: 0.15 s where a command is to answer in less than 0.3 s.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from fastfit_watch.config.paths import Paths
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths

LIBRARIES = "import yaml, pydantic, loguru"
DECODER = "import sys\nfrom PIL import Image\nfor name in sys.argv[1:]: Image.open(name).load()"
TIMES, ROUNDS = 2.0, 5
PICTURES = ("anna.jpg", *(f"shirt{number}.jpg" for number in range(4)))

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def one_processor() -> Iterator[None]:
    """On several processors, `check` decodes in several processes, and takes more processor time to be done sooner."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def cpu_seconds(folder: Path, *arguments: str) -> float:
    """Processor time of Python with these arguments, and of what it starts."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


def least_seconds(folder: Path, *programs: tuple[str, ...]) -> list[float]:
    """The least processor time of each program in several rounds; taking turns, all meet the same disturbances."""
    rounds = [[cpu_seconds(folder, *program) for program in programs] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def test_check_answers_at_once(tmp_path: Path) -> None:
    """It may take what the decoding of the pictures takes in a process of its own, and as long as any command."""
    looks = {f"look{number}": {"upper": name} for number, name in enumerate(PICTURES[1:])}
    (tmp_path / "outfit.yaml").write_text(yaml.safe_dump({"people": [PICTURES[0]], "looks": looks}))
    for name in PICTURES:
        Image.linear_gradient("L").resize((768, 1024)).convert("RGB").save(tmp_path / name)
    libraries_s, decoder_s, check_s = least_seconds(
        tmp_path,
        ("-c", LIBRARIES),
        ("-c", DECODER, *PICTURES),
        ("-m", "fastfit_watch", "check", str(tmp_path)),
    )
    assert check_s < TIMES * libraries_s + decoder_s


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["pause"]], ids=" ".join)
def test_what_reads_the_ledger_answers_at_once(words: list[str], tmp_path: Path) -> None:
    paths = Paths(tmp_path / "inputs", tmp_path / "outputs", tmp_path / "logs")
    SpoolPaths(paths.inputs).root.mkdir(parents=True)
    ledger = Ledger(SpoolPaths(paths.inputs).ledger)
    for number in range(50):
        ledger.find_or_create_unclaimed(f"job{number}", 1.0)
    ledger.close()
    libraries_s, command_s = least_seconds(
        tmp_path, ("-c", LIBRARIES), ("-m", "fastfit_watch", *words, "--inputs", str(paths.inputs))
    )
    assert command_s < TIMES * libraries_s
