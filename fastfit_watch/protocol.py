"""What the daemon and an engine process say to each other: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from fastfit_watch.job import LookResult
from fastfit_watch.look import Category, Framing, ImageFormat, MaskMode, SamplingOptions


class WorkerExit(IntEnum):
    """Why an engine process ended by itself."""

    STOPPED = 0
    CRASHED = 1
    USAGE = 2
    CANNOT_LOAD = 10
    DEVICE_UNUSABLE = 11


class FailureKind(StrEnum):
    """Whose fault a failed look is, which decides what happens to it."""

    INPUT = "input"
    MEMORY = "memory"
    STORAGE = "storage"
    ENGINE = "engine"


@dataclass(frozen=True)
class Order:
    """One look for an engine process. Paths are absolute; `marks` are written into the picture."""

    token: int
    person: Path
    garments: Mapping[Category, Path]
    options: SamplingOptions
    output: Path
    receipt: Path
    marks: Mapping[str, str]


@dataclass(frozen=True)
class Loading:
    """The engine is being loaded; `stage` names the part."""

    stage: str


@dataclass(frozen=True)
class Ready:
    """The engine is loaded and waits for looks."""

    device: str
    bundle: str
    load_s: float
    versions: Mapping[str, str]


@dataclass(frozen=True)
class CannotLoad:
    """The engine cannot be loaded; `message` says why and what to do."""

    message: str


@dataclass(frozen=True)
class Step:
    """A look moved on: `step` of `steps` in `stage`."""

    token: int
    stage: str
    step: int
    steps: int


@dataclass(frozen=True)
class Done:
    """The picture of a look is on disk."""

    token: int
    result: LookResult


@dataclass(frozen=True)
class Failed:
    """A look could not be made."""

    token: int
    kind: FailureKind
    message: str


Message = Loading | Ready | CannotLoad | Step | Done | Failed

_TYPES: dict[str, type[Message]] = {
    "loading": Loading,
    "ready": Ready,
    "failed-load": CannotLoad,
    "progress": Step,
    "done": Done,
    "failed": Failed,
}


def write_order(order: Order) -> str:
    """One order as a line, without its line feed."""
    fields = {
        "type": "look",
        "token": order.token,
        "person": str(order.person),
        "garments": {category.value: str(path) for category, path in order.garments.items()},
        "options": asdict(order.options),
        "output": str(order.output),
        "receipt": str(order.receipt),
        "marks": dict(order.marks),
    }
    return json.dumps(fields)


def read_order(line: str) -> Order:
    """The order of a line. Raises ValueError, KeyError or TypeError if it is none."""
    fields = json.loads(line)
    options = fields["options"]
    return Order(
        token=fields["token"],
        person=Path(fields["person"]),
        garments={Category(slot): Path(path) for slot, path in fields["garments"].items()},
        options=SamplingOptions(
            steps=options["steps"],
            seed=options["seed"],
            guidance=options["guidance"],
            mask=MaskMode(options["mask"]),
            framing=Framing(options["framing"]),
            format=ImageFormat(options["format"]),
        ),
        output=Path(fields["output"]),
        receipt=Path(fields["receipt"]),
        marks=fields["marks"],
    )


def write_message(message: Message) -> str:
    """One message as a line, without its line feed."""
    name = next(name for name, kind in _TYPES.items() if isinstance(message, kind))
    return json.dumps({"type": name, **asdict(message)})


def read_message(line: str) -> Message:
    """The message of a line. Raises ValueError, KeyError or TypeError if it is none."""
    fields: dict[str, Any] = json.loads(line)
    kind = _TYPES[fields.pop("type")]
    if kind is Done:
        return Done(fields["token"], LookResult(**fields["result"]))
    if kind is Failed:
        return Failed(fields["token"], FailureKind(fields["kind"]), fields["message"])
    return kind(**fields)


def read_receipt(text: str) -> LookResult:
    """The result that was written down before its picture became visible. Raises ValueError or TypeError."""
    return LookResult(**json.loads(text))
