"""The command line: reads it, runs one command of `commands/`, and turns an error into words and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fastfit_watch.cli.commands import (
    jobs,
    pictures,
    queue_control,
    run,
    setup,
    webhook,
)
from fastfit_watch.domain.errors import BundleError, ConfigError, EngineError, FastFitError, StorageError, UploadError
from fastfit_watch.system.exit_codes import ExitCode

_CODES: tuple[tuple[type[FastFitError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (UploadError, ExitCode.INVALID),
    (StorageError, ExitCode.STORAGE),
    (EngineError, ExitCode.ENGINE),
    (BundleError, ExitCode.ENGINE),
)
_ASK = "__complete"  # how a shell asks, see completion.py
_COMMANDS = (
    *(run.add_run, pictures.add_try_on, pictures.add_reproduce),
    *(jobs.add_check, jobs.add_status, jobs.add_logs),
    *(queue_control.add_retry, queue_control.add_cancel, queue_control.add_priority),
    *(queue_control.add_release, queue_control.add_pause, queue_control.add_resume),
    *(setup.add_doctor, setup.add_service, setup.add_models),
    *(pictures.add_demo, pictures.add_bench, webhook.add_webhook, setup.add_completion),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors people can mend are lines on standard error, no traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if words[:1] == [_ASK]:
        from fastfit_watch.cli.completion import answer_quietly

        print("\n".join(answer_quietly(parser, words[1:])))
        return ExitCode.OK
    settings = parser.parse_args(words)
    try:
        code = int(settings.command(settings))
        sys.stdout.flush()
        return code
    except FastFitError as error:
        print(_for_reader("".join(f"error: {line}\n" for line in str(error).splitlines())), end="", file=sys.stderr)
        return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more, as in `status | head`. Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK


def build_parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    codes = "\n".join(f"  {code.value:3}  {code.name.lower():12} {code.meaning}" for code in ExitCode)
    parser = argparse.ArgumentParser(
        prog="fastfit-watch",
        description="Dresses the people in uploaded job folders with a resident FastFit virtual try-on engine.",
        epilog=f"exit codes:\n{codes}\n\nexample: fastfit-watch COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    return parser


def _for_reader(text: str) -> str:
    """Lines for standard error; in the journal each with its priority."""
    if "JOURNAL_STREAM" not in os.environ:
        return text
    from fastfit_watch.daemon.logs import is_journal, with_priority

    return with_priority("ERROR", text) if is_journal(sys.stderr) else text
