"""A picture that is opened only if something must be made of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Picture:
    """One picture as the engine is given it.

    open : gives it as RGB, upright. digest : SHA-256 of its file; if empty, nothing that is made of it is kept.
    """

    open: Callable[[], Image.Image]
    digest: str = ""

    @classmethod
    def of(cls, given: Image.Image | Picture) -> Picture:
        """A picture that is open already has no digest."""
        return given if isinstance(given, Picture) else cls(lambda: given)

    def key(self, use: str, *more: Hashable) -> tuple[Hashable, ...] | None:
        """The name under which what is made of it may be kept; None without a digest."""
        return (use, self.digest, *more) if self.digest else None
