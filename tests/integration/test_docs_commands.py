"""The commands of README and docs, run word for word: on a box with a daemon, and on a laptop that uploads by scp.

The weights are the mini ones, and the box is this machine behind a real sshd; all else is as the pages say. A command
that is not run here is listed with the reason and the place where it is tried, so none can be forgotten.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.loopback_ssh import serve_ssh
from support.running_daemon import draw_upload

from fastfit_watch.system.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PATIENCE_S = 240.0
# Not run here: what a line begins with, and why.
ELSEWHERE = {
    "python3 -m venv": "CI runs README's line itself (tests/test_readme.py)",
    "git clone": "needs the address of a repository",
    "cd /opt": "needs root and systemd",
    "install -": "needs root",
    "mkdir -p /srv": "needs root",
    "/opt/": "needs root; what it prints is tried in tests/unit/cli/test_service_unit.py",
    "systemctl": "needs systemd: tests/integration/test_systemd.py",
    "journalctl": "needs systemd",
    "sudo": "needs the service's account",
    "useradd": "needs root: tests/integration/test_upload_account.py",
    "scp anna@box": "needs that account: tests/integration/test_upload_account.py",
    "scp -r spring anna@box": "the same",
    "scp -r anna@box": "the same",
    "python3 -c 'import sqlite3": "tests/unit/docs/test_running.py runs it",
    "cp -a": "the same",
    "ssh -L": "serves until it is ended",
    ".venv/bin/fastfit-watch models pull": "fetches from the network: tests/integration/test_hub.py",
    "fastfit-watch bench": "takes minutes and a GPU",
    ".venv/bin/python tests/test_imports.py": "CI runs that file as a test",
    "uv venv": "needs uv and another Python",
    ".venv/bin/pip install 'torch": "would change the environment of the tests",
    "rm ": "removes what the machine's own service may need",
    "userdel": "removes accounts of the machine",
}
# Only lines that begin with one of these are ever run: a page may show lines that change the machine it is read on.
PROGRAMS = frozenset({"fastfit-watch", ".venv/bin/fastfit-watch", "scp", "ssh", "exiftool"})
# Run by the fixture and by tests of their own, in this order.
IN_ORDER = (
    ".venv/bin/fastfit-watch check spring/",
    ".venv/bin/fastfit-watch run",
    "scp -r spring/ gpu-box:fastfit-watch/inputs/",
    "ssh gpu-box tail -F fastfit-watch/outputs/spring/job.log",
    "scp -r gpu-box:fastfit-watch/outputs/spring/ .",
)
ENDLESS = ("fastfit-watch status --follow",)
MAY_COMPLAIN = (".venv/bin/fastfit-watch doctor",)  # of this machine: it has its own exit code for that


def lines() -> list[str]:
    """Every line of every shell block, once."""
    found: dict[str, None] = {}
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            found.update(dict.fromkeys(line.strip() for line in block.splitlines() if line.strip()))
    return list(found)


def is_run(line: str) -> bool:
    """Is this line run by the tests of this file?"""
    return line.split()[0] in PROGRAMS and not is_elsewhere(line)


def is_elsewhere(line: str) -> bool:
    return any(line.startswith(beginning) for beginning in ELSEWHERE)


@dataclass(frozen=True)
class DocsFixture:
    """The box's folder with the program and its daemon, the laptop's folder, and the programs that lines call."""

    box: Path
    laptop: Path
    programs: Path

    def begin(self, line: str, folder: Path) -> subprocess.Popen[str]:
        """Start a line in a shell of its own."""
        path = f"{self.programs}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "HOME": str(self.box.parent), "OMP_NUM_THREADS": "1"}
        shell = "zsh" if "${fpath" in line else "bash"
        return subprocess.Popen(
            [shell, "-c", line],
            cwd=folder,
            env=environment,
            text=True,
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, line: str, folder: Path) -> str:
        """Run a line to its end, which must be a good one; returns what it said."""
        process = self.begin(line, folder)
        try:
            said, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            end(process)
        codes = (ExitCode.OK, ExitCode.UNFIT) if line in MAY_COMPLAIN else (ExitCode.OK,)
        assert process.returncode in codes, f"{line}: {process.returncode}\n{said}"
        return said


def end(process: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
    """End a line with all it started."""
    if process.poll() is None:
        os.killpg(process.pid, how)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture(scope="module")
def fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocsFixture]:
    """A stranger's afternoon: check, start the daemon, upload, watch the log, fetch the results."""
    root = tmp_path_factory.mktemp("docs")
    fixture = DocsFixture(root / "box" / "fastfit-watch", root / "laptop", root / "bin")
    for folder in (fixture.box / "inputs", fixture.laptop, fixture.programs, *_folders_of_shells(fixture.box.parent)):
        folder.mkdir(parents=True)
    upload = draw_upload(fixture.laptop / "spring")
    for old, new in (("p0.jpg", "anna.jpg"), ("top0.png", "shirt.png"), ("bottom0.png", "jeans.png")):
        (upload / old).rename(upload / new)
    (upload / "outfit.yaml").write_text(
        "person: anna.jpg\nsteps: 2\nlooks:\n  casual: {upper: shirt.png, lower: jeans.png}\n", encoding="utf-8"
    )
    for file in ("anna.jpg", "shirt.png", "jeans.png"):
        shutil.copyfile(upload / file, fixture.box / Path(file).with_suffix(".jpg"))
    (fixture.box / "settings.yaml").write_text(_settings(fixture.box), encoding="utf-8")
    _write_program(fixture)
    with serve_ssh(root) as ssh:
        to = f'"${{@/gpu-box:/{ssh.target(fixture.box.parent)}/}}"'
        _script(fixture.programs / "scp", f"exec {_real(ssh.scp)} {to}")
        there = f'"cd {fixture.box.parent} && exec $*"'
        _script(fixture.programs / "ssh", f"shift; exec {_real(ssh.ssh)} {ssh.host} {there}")
        check, run, send, follow, fetch = IN_ORDER
        fixture.run(check, fixture.laptop)
        daemon = fixture.begin(run, fixture.box)
        try:
            fixture.run(send, fixture.laptop)
            _wait_for(fixture.box / "outputs" / "spring" / "job.log")
            watcher = fixture.begin(follow, fixture.laptop)
            _wait_for(fixture.box / "outputs" / "spring" / "report.json")
            said = _first_lines(watcher, "done")
            end(watcher)
            assert "anna.casual" in said
            fixture.run(fetch, fixture.laptop)
            shutil.copyfile(fixture.laptop / "spring" / "anna.casual.png", fixture.box / "anna.casual.png")
            shutil.copytree(fixture.laptop / "spring", fixture.box / "spring")
            yield fixture
        finally:
            end(daemon, signal.SIGTERM)


def _settings(box: Path) -> str:
    (box / "secret").write_text("0123456789abcdef" * 2)
    return f"webhook: {{url: 'http://127.0.0.1:9/', secret_file: {box / 'secret'}}}\n"


def _folders_of_shells(home: Path) -> list[Path]:
    return [home / ".local/share/bash-completion/completions", home / ".config/fish/completions", home / "zsh"]


def _write_program(fixture: DocsFixture) -> None:
    """`fastfit-watch`, and `.venv/bin/fastfit-watch` on both machines, with the mini weights."""
    weights = 'case "$1" in run|try-on) set -- "$@" --bundle mini --device cpu;; esac'
    text = f'{weights}\nexec {sys.executable} -m fastfit_watch "$@"'
    for folder in (fixture.programs, fixture.box / ".venv" / "bin", fixture.laptop / ".venv" / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
        _script(folder / "fastfit-watch", text)
    # What ${fpath[1]} is for a zsh that reads no settings of ours.
    _script(fixture.programs / "zsh", f'exec {shutil.which("zsh") or "zsh"} -fc "fpath=({fixture.box.parent}/zsh); $2"')


def _real(command: list[str]) -> str:
    """A command with the whole path of its program: there is one of its name in front of it."""
    return " ".join([str(shutil.which(command[0])), *command[1:]])


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def _wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path} never came"
        time.sleep(0.2)


def _first_lines(process: subprocess.Popen[str], awaited: str) -> str:
    """What an endless line says, up to the line with this word."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if awaited in line:
            break
    return said


@pytest.mark.parametrize(
    "line", ["rm -rf /srv/fastfit", "rm -rf /opt/fastfit-watch", "userdel fastfit", "pip install x"]
)
def test_a_line_that_changes_the_machine_is_never_run(line: str) -> None:
    assert not is_run(line)


def test_every_line_is_run_or_says_why_not() -> None:
    ours = [line for line in lines() if is_run(line)]
    assert len(ours) > 15
    for line in lines():
        assert is_run(line) or is_elsewhere(line), f"nobody runs {line!r}: see ELSEWHERE"
    assert set(IN_ORDER) <= set(ours)
    assert set(ENDLESS) <= set(ours)
    unused = [beginning for beginning in ELSEWHERE if not any(line.startswith(beginning) for line in lines())]
    assert unused == []


@pytest.mark.parametrize("line", [line for line in lines() if is_run(line) and line not in IN_ORDER])
def test_the_line_does_what_the_page_says(line: str, fixture: DocsFixture, tmp_path: Path) -> None:
    if "exiftool" in line and shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    if "${fpath" in line and shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    if line in ENDLESS:
        process = fixture.begin(line, fixture.box)
        assert "spring" in _first_lines(process, "spring")
        end(process)
        return
    # A second daemon needs folders of its own.
    said = fixture.run(line, tmp_path if " run " in line and _link_program(fixture, tmp_path) else fixture.box)
    assert said or ">" in line


def _link_program(fixture: DocsFixture, folder: Path) -> bool:
    (folder / ".venv").symlink_to(fixture.box / ".venv")
    (folder / "inputs").mkdir()
    return True


def test_what_came_back_is_what_the_page_promises(fixture: DocsFixture) -> None:
    promised = re.findall(r"^    (\w[\w.]+) ", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(promised) >= 6
    assert {path.name for path in (fixture.laptop / "spring").iterdir()} >= set(promised)
    assert (fixture.box / "outputs" / "index.html").is_file()
    assert (fixture.box.parent / "zsh").is_dir()
