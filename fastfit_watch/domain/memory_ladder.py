"""The memory ladder: what is done, rung by rung, when a device is too small for a look. Names and order only.

What a rung means for the networks stands in `engine/memory.py`.
"""

from __future__ import annotations

from enum import StrEnum


class Rung(StrEnum):
    """One way to spend less memory than the one before it. Each keeps what the rungs above it do.

    full: everything on the device; guidance's two halves in one pass; the next look is prepared meanwhile.
    halves: one look at a time, one half of the guidance after the other.
    offload: of VAE, UNet and parsers only the one at work is on the device; the others wait in the machine's memory.
    sequential: the weights of one layer at a time are on the device. Slow.
    tiles: the VAE works on overlapping tiles. Not the same picture: tones may differ slightly.
    smaller: all sizes three quarters, 768x1024 becomes 576x768. Only where the operator allows it.
    """

    FULL = "full"
    HALVES = "halves"
    OFFLOAD = "offload"
    SEQUENTIAL = "sequential"
    TILES = "tiles"
    SMALLER = "smaller"

    @property
    def is_exact(self) -> bool:
        """Is the picture that of `full`, up to rounding?"""
        return self not in (Rung.TILES, Rung.SMALLER)

    def reaches(self, other: Rung) -> bool:
        """Is this rung as low as `other`, or lower? So it does all that `other` does."""
        order = list(Rung)
        return order.index(self) >= order.index(other)


def ladder(start: Rung, *, allow_smaller: bool) -> tuple[Rung, ...]:
    """The rungs to try, from `start` down. Empty if it starts at `smaller` and that is not allowed."""
    return tuple(rung for rung in Rung if rung.reaches(start) and (allow_smaller or rung is not Rung.SMALLER))
