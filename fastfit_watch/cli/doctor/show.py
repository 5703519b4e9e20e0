"""All checks in their order, and how their findings are shown."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TextIO

from fastfit_watch.cli.doctor.access import find_account
from fastfit_watch.cli.doctor.finding import Finding, Level, bad, good
from fastfit_watch.cli.doctor.folders import examine_folders
from fastfit_watch.cli.doctor.gpu import examine_gpus
from fastfit_watch.cli.doctor.parsers import examine_parsers
from fastfit_watch.cli.doctor.system import examine_clock, examine_events, examine_service
from fastfit_watch.cli.doctor.weights import examine_weights
from fastfit_watch.cli.terminal import Colour, paint, wants_colour
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.text import one_line
from fastfit_watch.system.exit_codes import ExitCode

_COLOURS = {Level.OK: Colour.GOOD, Level.WARN: Colour.BUSY, Level.FAIL: Colour.BAD}
_LOG_LEVELS = {Level.OK: "INFO", Level.WARN: "WARNING", Level.FAIL: "ERROR"}


def examine_machine(read_config: Callable[[], Config], *, uploader: str | None, as_json: bool) -> ExitCode:
    """Do every check, and print what was found; a line appears as soon as its check is done.

    Raises ConfigError if there is no account `uploader`.
    """
    account = find_account(uploader) if uploader is not None else None
    findings: list[Finding] = []
    for finding in _examine(read_config, lambda config: examine_folders(config, account)):
        findings.append(finding)
        if not as_json:
            print(_line(finding, sys.stdout), flush=True)
    unfit = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        print(json.dumps({"fit": not unfit, "findings": [asdict(finding) for finding in findings]}, indent=2))
    return ExitCode.UNFIT if unfit else ExitCode.OK


def _examine(read_config: Callable[[], Config], folders: Callable[[Config], list[Finding]]) -> Iterator[Finding]:
    """Where the settings cannot be read, what does not depend on them is still told."""
    checks: list[tuple[str, Callable[[Config], Finding | Iterable[Finding]]]] = [
        ("gpu", examine_gpus),
        ("inotify", lambda config: examine_events()),
        ("clock", lambda config: examine_clock(config.inputs, time.time())),
    ]
    try:
        config = read_config()
        yield good("config", f"valid; bundle {config.bundle}")
        checks += [
            ("weights", examine_weights),
            ("parsers", examine_parsers),
            ("folders", folders),
            ("service", examine_service),
        ]
    except ConfigError as error:
        config = Config()
        yield bad("config", str(error), "Correct the settings; weights, folders and service are checked after that.")
    for name, check in checks:
        try:
            found = check(config)
            yield from [found] if isinstance(found, Finding) else found
        except OSError as error:
            yield bad(name, f"it cannot be checked: {error}.", "Run this as the user of the daemon.")


def _line(finding: Finding, stream: TextIO) -> str:
    """One line for people. In the journal it bears its priority instead of a colour."""
    level = paint(f"{finding.level.value:4}", _COLOURS[finding.level], wanted=wants_colour(stream))
    fix = f" Fix: {finding.fix}" if finding.fix else ""
    line = f"{level}  {finding.check:10}  {one_line(finding.message + fix)}"
    if "JOURNAL_STREAM" not in os.environ:
        return line
    from fastfit_watch.daemon.logs import is_journal, with_priority

    return with_priority(_LOG_LEVELS[finding.level], line).rstrip() if is_journal(stream) else line
