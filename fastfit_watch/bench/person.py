"""A person who is known beforehand: to measure everything but the parsers, which need real weights to see anybody."""

from __future__ import annotations

import numpy as np
from torch import nn

from fastfit_watch.engine.parsers.parsing import Parsing
from fastfit_watch.engine.pixels import Pixels

# top, bottom, left, right as shares of the picture; then DensePose, LIP and ATR labels
_HEAD = (0.05, 0.20, 0.40, 0.60, 23, 13, 11)
_SHIRT = (0.20, 0.50, 0.30, 0.70, 1, 5, 4)
_TROUSERS = (0.50, 0.85, 0.35, 0.65, 7, 9, 6)
_LEFT_SHOE = (0.85, 0.92, 0.35, 0.50, 5, 18, 9)
_RIGHT_SHOE = (0.85, 0.92, 0.50, 0.65, 6, 19, 10)
_BAG = (0.45, 0.60, 0.72, 0.85, 0, 0, 16)


class StandingPerson:
    """Stands in every picture: a parser in place of those that need real weights."""

    networks: tuple[nn.Module, ...] = ()

    def parse(self, image: Pixels) -> Parsing:
        """Label a box each for head, shirt, trousers, shoes and a bag; the pose is a red spine."""
        height, width = image.shape[:2]
        maps = {name: np.zeros((height, width), np.uint8) for name in ("densepose", "lip", "atr")}
        for top, bottom, left, right, *labels in (_HEAD, _SHIRT, _TROUSERS, _LEFT_SHOE, _RIGHT_SHOE, _BAG):
            rows = slice(int(top * height), int(bottom * height))
            columns = slice(int(left * width), int(right * width))
            for name, label in zip(maps, labels, strict=True):
                maps[name][rows, columns] = label
        pose = np.zeros((height, width, 3), np.uint8)
        pose[height // 5 : height // 2, 9 * width // 20 : 11 * width // 20] = (255, 0, 0)
        return Parsing(pose, **maps)
