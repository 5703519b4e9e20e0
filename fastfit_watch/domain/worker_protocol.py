"""The messages between the daemon and a worker process: one JSON object a line, read and written by pydantic.

Only the two processes that speak it import this module: pydantic takes time to build its readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Discriminator, TypeAdapter

from fastfit_watch.domain.job import LookResult
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.receipts import ReceiptSubject
from fastfit_watch.domain.worker_settings import WorkerSettings

Tag = TypeVar("Tag", bound=str)
Written = TypeVar("Written")

SAVING = "save"
"""The stage of a look that needs the device no more: the next one is already in work."""


class WorkerExit(IntEnum):
    """Why an engine process ended by itself."""

    STOPPED = 0
    CRASHED = 1
    USAGE = 2
    CANNOT_LOAD = 10
    DEVICE_UNUSABLE = 11
    OUTGROWN = 12


BLAMELESS = frozenset({WorkerExit.DEVICE_UNUSABLE, WorkerExit.OUTGROWN})
"""Ends that no look in hand is to blame for: one that failed was answered before."""


class FailureKind(StrEnum):
    """Whose fault a failed look is, which decides what happens to it."""

    INPUT = "input"
    MEMORY = "memory"
    STORAGE = "storage"
    ENGINE = "engine"


def _tag(name: Tag) -> Tag:
    """Declare the field that says in a line which message it is. Nobody sets it."""
    return field(default=name, kw_only=True, repr=False)


@dataclass(frozen=True)
class LookOrder:
    """One look for an engine process. Paths are absolute; `marks` are written into the picture.

    rungs: of the memory ladder, to be tried in this order. withheld: the private folder for a picture that the content
    filter keeps back. subject: what the receipt is about. digests: file name -> SHA-256, by which the engine knows a
    picture it has seen before.
    """

    token: int
    person: Path
    garments: Mapping[Category, Path]
    options: SamplingOptions
    output: Path
    receipt: Path
    marks: Mapping[str, str]
    rungs: tuple[Rung, ...]
    withheld: Path
    subject: ReceiptSubject
    digests: Mapping[str, str] = field(default_factory=dict)
    type: Literal["look"] = _tag("look")


@dataclass(frozen=True)
class Loading:
    """The engine is being loaded; `stage` names the part."""

    stage: str
    type: Literal["loading"] = _tag("loading")


@dataclass(frozen=True)
class Fetching:
    """Weights are being fetched, and it moves on; `progress` is for people."""

    progress: str
    type: Literal["fetching"] = _tag("fetching")


@dataclass(frozen=True)
class Ready:
    """The engine is loaded and waits for looks.

    card: what the device is, for people, with its memory: a rung is remembered for this very card.
    """

    device: str
    bundle: str
    load_s: float
    versions: Mapping[str, str]
    card: str = ""
    type: Literal["ready"] = _tag("ready")


@dataclass(frozen=True)
class CannotLoad:
    """The engine cannot be loaded; `message` says why and what to do."""

    message: str
    type: Literal["failed-load"] = _tag("failed-load")


@dataclass(frozen=True)
class LookStep:
    """A look moved on: `step` of `steps` in `stage`, on a rung of the memory ladder."""

    token: int
    stage: str
    step: int
    steps: int
    rung: str = Rung.FULL.value
    type: Literal["progress"] = _tag("progress")


@dataclass(frozen=True)
class RungLowered:
    """The device was full on the rung `tried`; the same look is done again on `rung`. `reason` is a sentence."""

    token: int
    tried: Rung
    rung: Rung
    reason: str
    type: Literal["lowered"] = _tag("lowered")


@dataclass(frozen=True)
class LookDone:
    """The picture of a look is on disk."""

    token: int
    result: LookResult
    type: Literal["done"] = _tag("done")


@dataclass(frozen=True)
class LookWithheld:
    """The content filter kept the picture of a look back: it lies in the order's private folder. `reason` says why."""

    token: int
    reason: str
    type: Literal["withheld"] = _tag("withheld")


@dataclass(frozen=True)
class LookFailed:
    """A look could not be made."""

    token: int
    kind: FailureKind
    message: str
    type: Literal["failed"] = _tag("failed")


Message = Loading | Fetching | Ready | CannotLoad | LookStep | RungLowered | LookDone | LookWithheld | LookFailed

_SETTINGS = TypeAdapter(WorkerSettings)
_ORDERS = TypeAdapter(LookOrder)
_MESSAGES: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Discriminator("type")])


def write_settings(settings: WorkerSettings) -> str:
    """Return the settings as the argument of the worker's command."""
    return _write(_SETTINGS, settings)


def read_settings(text: str) -> WorkerSettings:
    """Return the settings of that argument. Raises ValueError if it holds none."""
    return _SETTINGS.validate_python(json.loads(text), extra="forbid")


def write_order(order: LookOrder) -> str:
    """Return the line of an order, without its line feed."""
    return _write(_ORDERS, order)


def read_order(line: str) -> LookOrder:
    """Return the order of a line. Raises ValueError if it is none."""
    return _ORDERS.validate_python(json.loads(line), extra="forbid")


def write_message(message: Message) -> str:
    """Return the line of a message, without its line feed."""
    return _write(_MESSAGES, message)


def read_message(line: str) -> Message:
    """Return the message of a line. Raises ValueError if it is none."""
    return _MESSAGES.validate_python(json.loads(line), extra="forbid")


def _write(adapter: TypeAdapter[Written], written: Written) -> str:
    # pydantic's own writer refuses names that are no UTF-8; the standard library escapes and reads them.
    return json.dumps(adapter.dump_python(written, mode="json"))


@dataclass(frozen=True)
class WorkerMessage:
    """A message from an engine process. `life` counts the processes started for that device."""

    device: str
    life: int
    message: Message


@dataclass(frozen=True)
class WorkerExited:
    """An engine process is gone. exit_code: negative for a signal."""

    device: str
    life: int
    exit_code: int


Event = WorkerMessage | WorkerExited
