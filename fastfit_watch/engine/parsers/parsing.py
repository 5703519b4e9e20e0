"""What a human parser says about a picture: the contract between the parsers and everything that reads labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn


@dataclass(frozen=True)
class Parsing:
    """Pose and labels of one picture, all at that picture's size (H, W).

    Attributes
    ----------
    pose : uint8 (H, W, 3), RGB skeleton on black (FastFit inference specification, section 3.2).
    densepose : uint8 (H, W), body part 0..24, 0 is background.
    lip : uint8 (H, W), Look Into Person label 0..19, 0 is background.
    atr : uint8 (H, W), ATR label 0..17, 0 is background.
    """

    pose: NDArray[np.uint8]
    densepose: NDArray[np.uint8]
    lip: NDArray[np.uint8]
    atr: NDArray[np.uint8]


class HumanParser(Protocol):
    """Anything that can parse a picture of one person."""

    @property
    def networks(self) -> Sequence[nn.Module]:
        """All networks that compute on the device. Memory may move them between the device and the machine."""
        ...

    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """Parse a uint8 (H, W, 3) RGB picture. The same picture always gives the same parsing."""
        ...
