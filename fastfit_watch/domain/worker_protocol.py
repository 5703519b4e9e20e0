"""What the daemon and an engine process say to each other: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from fastfit_watch.domain.job import LookResult
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung

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


@dataclass(frozen=True)
class LookOrder:
    """One look for an engine process. Paths are absolute; `marks` are written into the picture.

    rungs: of the memory ladder, to be tried in this order. withheld: the private folder for a picture that the content
    filter keeps back. digests: file name -> SHA-256, by which the engine knows a picture it has seen before.
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
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loading:
    """The engine is being loaded; `stage` names the part."""

    stage: str


@dataclass(frozen=True)
class Fetching:
    """Weights are being fetched, and it moves on; `progress` is for people."""

    progress: str


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


@dataclass(frozen=True)
class CannotLoad:
    """The engine cannot be loaded; `message` says why and what to do."""

    message: str


@dataclass(frozen=True)
class LookStep:
    """A look moved on: `step` of `steps` in `stage`, on a rung of the memory ladder."""

    token: int
    stage: str
    step: int
    steps: int
    rung: str = Rung.FULL.value


@dataclass(frozen=True)
class RungLowered:
    """The device was full on the rung `tried`; the same look is done again on `rung`. `reason` is a sentence."""

    token: int
    tried: Rung
    rung: Rung
    reason: str


@dataclass(frozen=True)
class LookDone:
    """The picture of a look is on disk."""

    token: int
    result: LookResult


@dataclass(frozen=True)
class LookWithheld:
    """The content filter kept the picture of a look back: it lies in the order's private folder. `reason` says why."""

    token: int
    reason: str


@dataclass(frozen=True)
class LookFailed:
    """A look could not be made."""

    token: int
    kind: FailureKind
    message: str


Message = Loading | Fetching | Ready | CannotLoad | LookStep | RungLowered | LookDone | LookWithheld | LookFailed

_TYPES: dict[str, type[Message]] = {
    "loading": Loading,
    "fetching": Fetching,
    "ready": Ready,
    "failed-load": CannotLoad,
    "progress": LookStep,
    "lowered": RungLowered,
    "done": LookDone,
    "withheld": LookWithheld,
    "failed": LookFailed,
}


def write_order(order: LookOrder) -> str:
    """One order as a line, without its line feed."""
    fields = {
        "type": "look",
        "token": order.token,
        "person": str(order.person),
        "garments": {category.value: str(path) for category, path in order.garments.items()},
        "options": order.options.to_dict(),
        "output": str(order.output),
        "receipt": str(order.receipt),
        "marks": dict(order.marks),
        "rungs": list(order.rungs),
        "withheld": str(order.withheld),
        "digests": dict(order.digests),
    }
    return json.dumps(fields)


def read_order(line: str) -> LookOrder:
    """The order of a line. Raises ValueError, KeyError or TypeError if it is none."""
    fields = json.loads(line)
    return LookOrder(
        token=fields["token"],
        person=Path(fields["person"]),
        garments={Category(slot): Path(path) for slot, path in fields["garments"].items()},
        options=SamplingOptions.from_dict(fields["options"]),
        output=Path(fields["output"]),
        receipt=Path(fields["receipt"]),
        marks=fields["marks"],
        rungs=tuple(Rung(name) for name in fields["rungs"]),
        withheld=Path(fields["withheld"]),
        digests=fields["digests"],
    )


def write_message(message: Message) -> str:
    """One message as a line, without its line feed."""
    name = next(name for name, kind in _TYPES.items() if isinstance(message, kind))
    return json.dumps({"type": name, **asdict(message)})


def read_message(line: str) -> Message:
    """The message of a line. Raises ValueError, KeyError or TypeError if it is none."""
    fields: dict[str, Any] = json.loads(line)
    kind = _TYPES[fields.pop("type")]
    if kind is LookDone:
        return LookDone(fields["token"], LookResult(**fields["result"]))
    if kind is RungLowered:
        return RungLowered(fields["token"], Rung(fields["tried"]), Rung(fields["rung"]), fields["reason"])
    if kind is LookFailed:
        return LookFailed(fields["token"], FailureKind(fields["kind"]), fields["message"])
    return kind(**fields)


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
