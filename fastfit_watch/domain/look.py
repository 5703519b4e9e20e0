"""The nouns of one picture: who wears what, and how it is sampled. Imports only the standard library."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

DRESS_CONFLICT = "Configuration Conflict: a dress covers the whole body and cannot be worn with 'upper' or 'lower'."


class Category(StrEnum):
    """Garment slot. `label` is its row in the UNet's class table (FastFit inference specification, section 1.2)."""

    UPPER = "upper"
    LOWER = "lower"
    DRESS = "dress"
    SHOE = "shoe"
    BAG = "bag"

    @property
    def label(self) -> int:
        """Class label 0..4 given to the reference pass."""
        return list(Category).index(self)

    @property
    def is_accessory(self) -> bool:
        """Shoes and bags are encoded at half the garment's size."""
        return self in (Category.SHOE, Category.BAG)


class MaskMode(StrEnum):
    """How much of the person is repainted: the whole outfit, or only the region of the given slots."""

    FULL = "full"
    WORN = "worn"


class Framing(StrEnum):
    """`crop`: centre crop to 3:4 at the model's size. `paste_back`: the result returns into the full-size original."""

    CROP = "crop"
    PASTE_BACK = "paste_back"


class ImageFormat(StrEnum):
    """File format of a result; the value is its file extension."""

    PNG = "png"
    JPG = "jpg"
    WEBP = "webp"


class Preset(StrEnum):
    """How much is spent on a picture. `exact` is the published arithmetic; the others are approximations, by choice.

    fast: 12 steps of a better solver, guidance in the first two thirds. draft: 6 steps, guidance in the first half.
    """

    EXACT = "exact"
    FAST = "fast"
    DRAFT = "draft"

    @property
    def steps(self) -> int:
        """Denoising steps where none are asked for."""
        return {Preset.EXACT: 30, Preset.FAST: 12, Preset.DRAFT: 6}[self]

    @property
    def guided_share(self) -> float:
        """Share of the steps, from the first on, that run both halves of guidance."""
        return {Preset.EXACT: 1.0, Preset.FAST: 2 / 3, Preset.DRAFT: 0.5}[self]


@dataclass(frozen=True)
class SamplingOptions:
    """How one look is sampled.

    steps: 1..200 denoising steps. seed: 0..2**63-1, None until drawn. guidance: classifier-free guidance scale,
    1..20 (1 = off). preset: chooses the solver; `steps` holds its own number where nobody asked for another.
    """

    steps: int = 30
    seed: int | None = None
    guidance: float = 2.5
    mask: MaskMode = MaskMode.FULL
    framing: Framing = Framing.CROP
    format: ImageFormat = ImageFormat.PNG
    preset: Preset = Preset.EXACT

    def to_dict(self) -> dict[str, Any]:
        """Return the options by name, as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingOptions:
        """Read the options of `to_dict`, or texts of them. An absent one has its default, other keys are ignored.

        Raises ValueError or TypeError for what is no value of its option.
        """
        given = {name: values[name] for name in _OPTION_KINDS if values.get(name) is not None}
        return cls(**{name: _OPTION_KINDS[name](value) for name, value in given.items()})


_OPTION_KINDS = {name: type(value) for name, value in asdict(SamplingOptions(seed=0)).items()}


@dataclass(frozen=True)
class Look:
    """One picture to make: a person, the garments worn together, and how to sample it.

    `person` and the garments are file names inside the upload; `name` is the look's name in the manifest.
    """

    person: str
    name: str
    garments: Mapping[Category, str]
    options: SamplingOptions = field(default_factory=SamplingOptions)

    @property
    def key(self) -> str:
        """`anna.casual`: unique within a job; the result's file name without its extension."""
        return f"{self.person.rsplit('.', 1)[0]}.{self.name}"


def outfit_conflict(categories: Collection[Category]) -> str | None:
    """Return the conflict message if these slots cannot be worn together, else None."""
    if Category.DRESS in categories and (Category.UPPER in categories or Category.LOWER in categories):
        return DRESS_CONFLICT
    return None
