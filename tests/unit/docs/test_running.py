"""docs/running.md, tried out: its commands are known, sshd takes its settings, its backup can be restored."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from unit.intake.test_claim import make_upload, take

from fastfit_watch.cli.main import build_parser
from fastfit_watch.cli.service_unit import CONVENTIONAL
from fastfit_watch.domain.job import Status
from fastfit_watch.storage.ledger import Ledger

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def _commands() -> list[list[str]]:
    """Every call of fastfit-watch in the page, as words."""
    text = "\n".join([*_blocks("sh"), *re.findall(r"`([^`\n]+)`", PAGE)])
    calls = re.findall(r"(?:^|\s)(?:\S*/)?fastfit-watch +([a-z][a-z-]*\b[^\n#&|>]*)", text, re.MULTILINE)
    return [shlex.split(call) for call in calls]


def test_every_command_is_known() -> None:
    commands = _commands()
    assert {words[0] for words in commands} >= {"service", "doctor"}
    for words in commands:
        build_parser().parse_args(words)


def test_every_link_and_place_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert str(CONVENTIONAL.config) in PAGE
    assert f"Match Group {CONVENTIONAL.group}\n    ChrootDirectory {CONVENTIONAL.home}\n" in PAGE
    assert (ROOT / "systemd" / "fastfit-watch.service").exists()


def test_every_setting_it_names_exists() -> None:
    reference = (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:log|engine|limits|watch)\.\w+)", PAGE))
    assert len(named) > 4
    assert [name for name in named if not re.search(rf"^  {name.split('.')[1]}:", reference, re.MULTILINE)] == []


def test_the_backup_is_whole_while_the_ledger_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    make_upload(tmp_path / "inputs")
    take(tmp_path / "inputs")
    command = next(line for line in "".join(_blocks("sh")).splitlines() if line.startswith("python3 -c"))
    (tmp_path / "backup").mkdir()
    with closing(Ledger(tmp_path / "inputs" / ".spool" / "ledger.db")) as ledger:
        ledger.requests.pause("not in the main file yet", 1.0)
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert not list((tmp_path / "backup").glob("*-wal"))
    with closing(sqlite3.connect(tmp_path / "backup" / "ledger.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with closing(Ledger(tmp_path / "backup" / "ledger.db", read_only=True)) as restored:
        job = restored.job("spring")
        assert job is not None
        assert job.status is Status.QUEUED
        assert restored.requests.paused() == "not in the main file yet"


@pytest.mark.skipif(SSHD is None, reason="OpenSSH's server is not installed")
def test_sshd_takes_the_settings(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    (snippet,) = _blocks("sshd_config")
    (tmp_path / "sshd.conf").write_text(f"HostKey {tmp_path}/key\nSubsystem sftp internal-sftp\n{snippet}")
    Path("/run/sshd").mkdir(exist_ok=True)
    check = subprocess.run([str(SSHD), "-t", "-f", str(tmp_path / "sshd.conf")], capture_output=True, check=False)
    assert (check.returncode, check.stderr) == (0, b"")
