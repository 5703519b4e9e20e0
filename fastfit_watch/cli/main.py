"""The command line: reads it, runs one command of `commands/`, and turns an error into words and an exit code."""

from __future__ import annotations

import argparse
import codecs
import difflib
import io
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import NoReturn

from fastfit_watch.cli.commands import (
    jobs,
    pictures,
    queue_control,
    run,
    setup,
    webhook,
)
from fastfit_watch.cli.terminal import speaks_unicode
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
    print_plainly_where_needed()
    parser = build_parser()
    if words[:1] == [_ASK]:
        from fastfit_watch.cli.completion import answer_quietly

        print("\n".join(answer_quietly(parser, words[1:])))
        return ExitCode.OK
    if not words:
        parser.print_help()
        return ExitCode.OK
    if words[0] == "help":
        words = [*words[1:], "--help"]
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
    parser = CommandParser(
        prog="fastfit-watch",
        description="Dresses the people in uploaded job folders with a resident FastFit virtual try-on engine.",
        epilog=f"exit codes:\n{codes}\n\nexample: fastfit-watch help COMMAND",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    return parser


class CommandParser(argparse.ArgumentParser):
    """Names the command or choice that a wrong word comes nearest to."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error with its suggestion, and exit with code 2."""
        if choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            known = [word.strip(" '") for word in choice[2].split(",")]
            near = difflib.get_close_matches(choice[1], known, n=1)
            message = f"unknown word {choice[1]!r}" + (
                f", did you mean {near[0]!r}?" if near else f"; known: {choice[2]}"
            )
        super().error(message)


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from fastfit_watch import __version__  # found out only when asked for: reading metadata takes time

        print(f"fastfit-watch {__version__}")
        parser.exit()


def print_plainly_where_needed() -> None:
    """Let standard output and error replace what their encoding lacks, instead of ending the command."""
    codecs.register_error("plain", _write_plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not speaks_unicode(stream):
            stream.reconfigure(errors="plain")


def _write_plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = unicodedata.normalize("NFKD", error.object[error.start : error.end])  # an ellipsis becomes three points
    kept = (each if each.isascii() else "" if unicodedata.combining(each) else "?" for each in missing)
    return "".join(kept), error.end


def _for_reader(text: str) -> str:
    """Lines for standard error; in the journal each with its priority."""
    if "JOURNAL_STREAM" not in os.environ:
        return text
    from fastfit_watch.daemon.logs import is_journal, with_priority

    return with_priority("ERROR", text) if is_journal(sys.stderr) else text
