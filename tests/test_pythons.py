"""The code runs with every Python that the metadata allow: nothing in it was removed, or will be soon."""

from __future__ import annotations

import ast
import itertools
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "fastfit_watch").rglob("*.py"))
# What's New in Python 3.12 and 3.13, "Removed".
REMOVED = {"asynchat", "asyncore", "distutils", "imp", "smtpd"} | {
    *("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib"),
    *("ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
}


def _runs(python: str) -> bool:
    """Is this interpreter here, and does it start?"""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


PYTHONS = [sys.executable, *filter(_runs, ("python3.12", "python3.13", "python3.14"))]


def test_the_metadata_allow_every_python_from_3_11_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"


def test_no_dependency_is_an_address_which_an_index_would_refuse() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *itertools.chain.from_iterable(project["optional-dependencies"].values())]
    assert len(wanted) > 20
    assert [each for each in wanted if "@" in each] == []


@pytest.mark.parametrize("python", PYTHONS)
def test_it_compiles_without_a_warning(python: str, tmp_path: Path) -> None:
    """Compiled files go to a folder of the test's own."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    command = [python, "-W", "error", "-m", "compileall", "-f", "-q", str(ROOT / "fastfit_watch")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert len(list(tmp_path.rglob("*.pyc"))) == len(SOURCES)


def test_no_module_is_imported_that_newer_pythons_lack() -> None:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {(path.name, name) for name in names if name.split(".")[0] in REMOVED}
    assert found == set()
