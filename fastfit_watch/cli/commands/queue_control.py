"""Commands that change the queue: retry, cancel, priority, release, pause, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastfit_watch.cli.commands.arguments import Arguments, add_command, change_ledger, find_places
from fastfit_watch.system.exit_codes import ExitCode

if TYPE_CHECKING:
    from fastfit_watch.storage.ledger import Ledger

_JOB = "name of the job, as 'status' shows it"


def add_retry(commands: Any) -> None:
    """fastfit-watch retry."""
    add_command(commands, retry).add_argument("job", metavar="JOB", help=_JOB)


def retry(arguments: Arguments) -> int:
    """Try the failed and cancelled pictures of a job again, or check an unusable upload again.

    example: fastfit-watch retry spring
    """
    job = change_ledger(arguments, lambda ledger, now_s: ledger.requests.retry(arguments.job, now_s))
    print(f"{job.id}: {job.status.value}: {job.reason}")
    return ExitCode.OK


def add_cancel(commands: Any) -> None:
    """fastfit-watch cancel."""
    add_command(commands, cancel).add_argument("job", metavar="JOB", help=_JOB)


def cancel(arguments: Arguments) -> int:
    """Start no more pictures of a job. One in hand is finished first; what is made stays.

    example: fastfit-watch cancel spring
    """
    job = change_ledger(arguments, lambda ledger, now_s: ledger.requests.cancel(arguments.job, now_s))
    print(f"{job.id}: {job.status.value}: {job.reason}")
    return ExitCode.OK


def add_priority(commands: Any) -> None:
    """fastfit-watch priority."""
    parser = add_command(commands, priority)
    parser.add_argument("job", metavar="JOB", help=_JOB)
    parser.add_argument("priority", choices=("urgent", "high", "normal", "low"))


def priority(arguments: Arguments) -> int:
    """Serve a job earlier or later than its turn.

    urgent: before everyone. high: before other jobs of the same uploader. low: when nothing else waits. The manifest
    may say 'priority: high' or 'priority: low' too; what is said here weighs more.

    example: fastfit-watch priority spring urgent
    """
    from fastfit_watch.domain.job import Priority

    wanted = Priority[arguments.priority.upper()]
    job = change_ledger(arguments, lambda ledger, now_s: ledger.requests.prioritise(arguments.job, wanted, now_s))
    print(f"{job.id}: {job.status.value}, priority {job.priority.word}")
    return ExitCode.OK


def add_release(commands: Any) -> None:
    """fastfit-watch release."""
    parser = add_command(commands, release)
    parser.add_argument("job", metavar="JOB", help=_JOB)
    parser.add_argument("looks", metavar="LOOK", nargs="*", help="such as anna.casual (default: list all)")
    parser.add_argument("--discard", action="store_true", help="remove the pictures for good instead")


def release(arguments: Arguments) -> int:
    """Show the pictures of a job that the content filter withheld, release them into its results, or discard them.

    Without LOOK it lists them, with the reason and the file, so that someone can look at them first.

    example: fastfit-watch release spring
    example: fastfit-watch release spring anna.casual
    example: fastfit-watch release spring anna.casual --discard
    """
    from fastfit_watch.cli.release import decide, list_withheld

    paths = find_places(arguments)

    def act(ledger: Ledger, now_s: float) -> None:
        del now_s
        if arguments.looks:
            decide(paths, ledger, arguments.job, arguments.looks, discard=arguments.discard)
        else:
            list_withheld(paths, ledger, arguments.job)

    change_ledger(arguments, act)
    return ExitCode.OK


def add_pause(commands: Any) -> None:
    """fastfit-watch pause."""
    add_command(commands, pause).add_argument(
        "--reason", default="paused by request", help="shown to everyone who asks"
    )


def pause(arguments: Arguments) -> int:
    """Start no more pictures of any job until 'resume'. Uploads are still taken.

    example: fastfit-watch pause --reason "the GPU is needed until noon"
    """
    change_ledger(arguments, lambda ledger, now_s: ledger.requests.pause(arguments.reason, now_s))
    print(f"paused: {arguments.reason}")
    return ExitCode.OK


def add_resume(commands: Any) -> None:
    """fastfit-watch resume."""
    add_command(commands, resume)


def resume(arguments: Arguments) -> int:
    """Start pictures again after 'pause'.

    example: fastfit-watch resume
    """
    change_ledger(arguments, lambda ledger, now_s: ledger.requests.resume(now_s))
    print("resumed")
    return ExitCode.OK
