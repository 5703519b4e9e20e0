"""What the tests of `doctor` share: accounts, folders for them, and a look at findings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastfit_watch.cli.doctor.access import Account
from fastfit_watch.cli.doctor.finding import Finding, Level
from fastfit_watch.config.settings import Config

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another account")
ANNA = Account("anna", 54321, (54321, 54400))
DAEMON = Account("fastfit", 54322, (54322, 54400))
STRANGER = Account("stranger", 54323, (54323,))
SHARED_GID = 54400


def make_places(root: Path, **changes: Any) -> Config:
    """Settings whose folders lie, and stand, in `root`."""
    paths = {name: root / name for name in ("inputs", "outputs", "logs", "models")}
    for path in paths.values():
        path.mkdir(exist_ok=True)
    return Config(**{**paths, **changes})


def level_of(findings: list[Finding], check: str) -> Level:
    return next(finding.level for finding in findings if finding.check == check)


def words_of(findings: list[Finding], check: str) -> str:
    return next(f"{finding.message} {finding.fix}" for finding in findings if finding.check == check)


def act_as(account: Account, act: Callable[[], Any]) -> Any:
    """What `act` returns when that account does it. The process forks: another account may not reach our Python."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups(account.gids[1:])
        os.setgid(account.gids[0])
        os.setuid(account.uid)
        os.write(writing, json.dumps(act()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def put_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A command of that name, first on the PATH."""
    tool = folder / "tools" / name
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
