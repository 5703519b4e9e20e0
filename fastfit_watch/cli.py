"""The command line: reads it, runs one command of `commands/`, and turns an error into words and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fastfit_watch.commands import ask, make, order, set_up, tell
from fastfit_watch.errors import (
    BundleError,
    ConfigError,
    EngineError,
    FastFitError,
    StorageError,
    UploadError,
)
from fastfit_watch.exits import ExitCode

_CODES: tuple[tuple[type[FastFitError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (UploadError, ExitCode.INVALID),
    (StorageError, ExitCode.STORAGE),
    (EngineError, ExitCode.ENGINE),
    (BundleError, ExitCode.ENGINE),
)
_ASK = "__complete"  # how a shell asks, see completion.py
_COMMANDS = (
    *(make.add_run, make.add_try_on, make.add_reproduce),
    *(ask.add_check, ask.add_status, ask.add_logs),
    *(order.add_retry, order.add_cancel, order.add_priority, order.add_release, order.add_pause, order.add_resume),
    *(set_up.add_doctor, set_up.add_service, set_up.add_models),
    *(make.add_demo, make.add_bench, tell.add_webhook, tell.add_completion),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors people can mend are lines on standard error, no traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if words[:1] == [_ASK]:
        from fastfit_watch.completion import answer_quietly

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
    from fastfit_watch.logs import is_journal, with_priority

    return with_priority("ERROR", text) if is_journal(sys.stderr) else text
