"""The `webhook` commands: what was sent to whom, and sending it again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.text import one_line
from fastfit_watch.reporting.notifications.payload import write_notification
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.outbox import WEBHOOK, DeliveredNotification
from fastfit_watch.storage.spool import SpoolPaths

if TYPE_CHECKING:
    from fastfit_watch.config.settings import Config

_SHOWN = 30


def replay(config: Config, job_id: str, now_s: float) -> int:
    """Put all messages about a job into the outbox again; returns how many. One that was never written is written now.

    Raises ConfigError if there is no such job, it is not finished, or there is no webhook.
    """
    path = SpoolPaths(config.inputs).ledger
    if not path.exists():
        raise ConfigError(f"There is no ledger at {path}.", hint="Name the folder with --inputs, or start the daemon.")
    if not config.webhook.url:
        raise ConfigError("No webhook is set.", hint="Name the settings that have 'webhook.url' with --config.")
    ledger = Ledger(path)
    try:
        job = ledger.job(job_id)
        if job is None:
            raise ConfigError(f"There is no job {job_id!r}.", hint="See 'fastfit-watch status' for the known jobs.")
        if count := ledger.outbox.replay(WEBHOOK, job_id, now_s):
            return count
        if not job.status.is_final:
            raise ConfigError(f"Job {job_id!r} is {job.status.value}: there is nothing to tell yet.")
        ledger.outbox.post([write_notification(WEBHOOK, config, job, ledger.looks(job_id), now_s)])
        return 1
    finally:
        ledger.close()


def list_messages(path: Path) -> list[str]:
    """The newest messages, a line each. Raises ConfigError if there is no ledger."""
    ledger = Ledger(path, read_only=True)
    try:
        return [_line(posted) for posted in ledger.outbox.posted(WEBHOOK, _SHOWN)] or ["no messages"]
    finally:
        ledger.close()


def _line(posted: DeliveredNotification) -> str:
    notification = posted.notification
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(notification.since_s))
    outcome = posted.outcome or "to be sent"
    tries = f" (attempt {notification.attempts})" if notification.attempts else ""
    return one_line(f"{moment}  {notification.event}  {notification.job_id}  {outcome}{tries}")
