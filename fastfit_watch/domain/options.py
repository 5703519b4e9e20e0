"""The options of a look as people write them: one table for manifest, command line, schema and documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fastfit_watch.domain.look import Framing, ImageFormat, MaskMode, Preset


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int
    most: int

    def read(self, text: str) -> int | None:
        """The number; None for anything else. Leading zeros mean nothing: 010 is ten."""
        return int(text) if re.fullmatch(r"[0-9]{1,20}", text) and self.least <= int(text) <= self.most else None

    @property
    def expected(self) -> str:
        """What it must be, to end a sentence with."""
        return f"a whole number from {self.least} to {self.most}"

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Real:
    """A number from `least` to `most`, in plain digits."""

    least: float
    most: float

    def read(self, text: str) -> float | None:
        """The number; None for anything else."""
        plain = re.fullmatch(r"[0-9]{1,20}(\.[0-9]{0,20})?", text)
        return float(text) if plain and self.least <= float(text) <= self.most else None

    @property
    def expected(self) -> str:
        """What it must be, to end a sentence with."""
        return f"a number from {self.least} to {self.most}"

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        return {"type": "number", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Word:
    """One of the words of `kind`, in any case. aliases: other spellings of them."""

    kind: type[StrEnum]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str) -> StrEnum | None:
        """The word; None for anything else."""
        word = self.aliases.get(text.lower(), text.lower())
        return self.kind(word) if word in list(self.kind) else None

    @property
    def expected(self) -> str:
        """What it must be, to end a sentence with."""
        *first, last = self.kind
        return f"{', '.join(first)} or {last}"

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        return {"enum": [*self.kind, *self.aliases]}


@dataclass(frozen=True)
class Option:
    """One option: what it may be, how it is written, and what it does, in a sentence."""

    value: Whole | Real | Word
    example: str
    meaning: str


OPTIONS: Mapping[str, Option] = {
    "preset": Option(
        Word(Preset),
        "exact",
        "exact is the published arithmetic; fast and draft are quicker approximations with 12 and 6 steps of another "
        "solver. steps, if given, counts instead.",
    ),
    "steps": Option(Whole(1, 200), "30", "Denoising steps: more take longer and draw finer."),
    "seed": Option(
        Whole(0, 2**63 - 1),
        "7",
        "Where the noise begins. The same seed gives the same bytes on the same device and versions; "
        "without one, it is drawn at random and recorded.",
    ),
    "guidance": Option(
        Real(1, 20), "2.5", "How strongly the garments are followed (classifier-free guidance); 1 turns it off."
    ),
    "mask": Option(
        Word(MaskMode),
        "full",
        "What is repainted: full is the whole outfit, worn only the region of the given slots, "
        "so that a new shirt leaves the trousers alone.",
    ),
    "framing": Option(
        Word(Framing),
        "crop",
        "crop cuts the person to the model's 3:4; paste_back puts the result back into the original at its full size.",
    ),
    "format": Option(Word(ImageFormat, {"jpeg": "jpg"}), "png", "File format of the picture. png is lossless."),
}
