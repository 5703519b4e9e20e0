"""The `run` command: the daemon in this terminal or service."""

from __future__ import annotations

from typing import Any

from fastfit_watch.cli.commands.arguments import (
    Arguments,
    add_command,
    add_engine_options,
    read_config,
)


def add_run(commands: Any) -> None:
    """fastfit-watch run."""
    parser = add_command(commands, run)
    parser.add_argument("--once", action="store_true", help="process what is complete, then end")
    parser.add_argument("--quiet", action="store_true", help="only errors on standard error; the log file has all")
    add_engine_options(parser)


def run(arguments: Arguments) -> int:
    """Watch the inputs folder and dress what people upload, until told to stop.

    The first SIGTERM or Ctrl-C finishes the picture in hand and keeps the rest for the next start; a second one stops
    at once and loses nothing. SIGHUP reads the settings again.

    example: fastfit-watch run --config configs/default.yaml
    example: fastfit-watch run --once --bundle mini
    """
    from fastfit_watch.daemon.daemon import Daemon

    return Daemon(read_config(arguments), once=arguments.once, reread=lambda: read_config(arguments)).run()
