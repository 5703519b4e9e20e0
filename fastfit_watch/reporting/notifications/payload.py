"""Builds the notifications about a finished job: one for each channel that wants it, written with the report."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastfit_watch.domain.job import Job, LookRecord
from fastfit_watch.storage.outbox import HOOK, WEBHOOK, Notification

if TYPE_CHECKING:
    from fastfit_watch.config.settings import Config


def write_notifications(config: Config, job: Job, looks: Sequence[LookRecord], now_s: float) -> list[Notification]:
    """Build the notifications about a job that has just become final, one for each channel that wants the event."""
    wanted = ((WEBHOOK, config.webhook.url, config.webhook.events), (HOOK, config.hook.command, config.hook.events))
    return [
        write_notification(channel, config, job, looks, now_s)
        for channel, receiver, events in wanted
        if receiver and job.status.value in events
    ]


def write_notification(
    channel: str, config: Config, job: Job, looks: Sequence[LookRecord], now_s: float
) -> Notification:
    """Build one notification about a final job. channel: `webhook` or `hook`."""
    number, event = str(uuid.uuid4()), f"job.{job.status.value}"
    body = {
        "id": number,
        "event": event,
        "created": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds"),
        "job": job.id,
        "upload": job.name,
        "status": job.status.value,
        "reason": job.reason,
        "folder": str((config.outputs / job.id).absolute()),
        "report": "report.json",
        "pictures": [_picture(record) for record in looks],
    }
    return Notification(channel, number, job.id, event, json.dumps(body), now_s)


def _picture(record: LookRecord) -> dict[str, str | int | None]:
    result = record.result
    return {
        "look": record.look.key,
        "status": record.status.value,
        "reason": record.reason,
        "seed": record.look.options.seed,
        "file": result.file if result else None,
        "sha256": result.sha256 if result else None,
    }
