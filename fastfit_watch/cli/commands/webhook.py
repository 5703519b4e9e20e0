"""Commands that tell others: the webhook's messages to another machine, and the shell what may follow."""

from __future__ import annotations

import time
from typing import Any

from fastfit_watch.cli.commands.arguments import Arguments, add_command, add_group, find_places, read_config
from fastfit_watch.system.exit_codes import ExitCode


def add_webhook(commands: Any) -> None:
    """fastfit-watch webhook replay and list."""
    about = "See, and send again, the messages about finished jobs."
    messages = add_group(commands, "webhook", about, "fastfit-watch webhook list")
    add_command(messages, webhook_replay, "replay").add_argument("job", metavar="JOB", help="name of the job")
    add_command(messages, webhook_list, "list")


def webhook_replay(arguments: Arguments) -> int:
    """Send the messages about a job again, in their order. The daemon does it, at once or after its next start.

    A receiver knows a message that it had before by its header webhook-id.

    example: fastfit-watch webhook replay spring --config settings.yaml
    """
    from fastfit_watch.cli.webhook_log import replay

    count = replay(read_config(arguments), arguments.job, time.time())
    print(f"{arguments.job}: {count} message{'' if count == 1 else 's'} to be sent again")
    return ExitCode.OK


def webhook_list(arguments: Arguments) -> int:
    """List the newest messages: when, about which job, and what became of each.

    example: fastfit-watch webhook list
    """
    from fastfit_watch.cli.webhook_log import list_messages
    from fastfit_watch.storage.spool import SpoolPaths

    print("\n".join(list_messages(SpoolPaths(find_places(arguments).inputs).ledger)))
    return ExitCode.OK
