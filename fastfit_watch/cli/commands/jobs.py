"""Commands that answer and change nothing: check, status, logs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastfit_watch.cli.commands.arguments import Arguments, add_command, find_places, read_config, read_count


def add_check(commands: Any) -> None:
    """fastfit-watch check."""
    add_command(commands, check).add_argument("jobs", metavar="JOB", nargs="+", type=Path, help="job folder to check")


def check(arguments: Arguments) -> int:
    """Find every mistake of job folders before they are uploaded. Needs no GPU and changes nothing.

    example: fastfit-watch check spring/ summer/
    """
    from fastfit_watch.cli.check import check_folders
    from fastfit_watch.domain.limits import Limits

    return check_folders(arguments.jobs, read_config(arguments).limits if arguments.config else Limits())


def add_status(commands: Any) -> None:
    """fastfit-watch status."""
    parser = add_command(commands, status)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")


def status(arguments: Arguments) -> int:
    """Show what the daemon is doing, and every job with its state, pictures made, time left, and reason.

    Reads the disk only: works while the daemon runs, and when it does not. The time left follows from the measured
    seconds of a step and what stands before the job. --json prints everything; docs/status.schema.json describes it.
    --follow draws again every second until Ctrl-C, and prints what has changed where it goes into a pipe or a file.

    example: fastfit-watch status
    example: fastfit-watch status --follow
    example: fastfit-watch status --json
    """
    from fastfit_watch.cli.status.view import show

    return show(find_places(arguments), as_json=arguments.json, follow=arguments.follow)


def add_logs(commands: Any) -> None:
    """fastfit-watch logs."""
    parser = add_command(commands, logs)
    known = "name of a job, as 'status' shows it (default: the daemon)"
    parser.add_argument("job", metavar="JOB", nargs="?", help=known)
    parser.add_argument("--lines", metavar="N", type=read_count, default=200, help="at most the last N (default: 200)")
    way = argparse.BooleanOptionalAction
    parser.add_argument(
        "-f", "--follow", action=way, default=True, help="go on with what is added, or end (default: on)"
    )


def logs(arguments: Arguments) -> int:
    """Show a job's log, or without JOB the daemon's own, and go on with what is added until Ctrl-C.

    Following a job ends by itself once the job has.

    example: fastfit-watch logs spring
    example: fastfit-watch logs --no-follow --lines 20
    """
    from fastfit_watch.cli.log_view import show_log

    return show_log(find_places(arguments), arguments.job, lines=arguments.lines, follow=arguments.follow)
