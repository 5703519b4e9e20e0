"""Tokens that are alike are attended to once.

The unconditional half of guidance sees a picture of zeros for each garment (FastFit inference specification, section 2,
step 8). Nothing in the network depends on a place but the zeros that convolutions find around a picture. So its tokens
differ only near the sides, by as much as convolutions reach, and along a side they are equal again. Of n tokens with
the same key and value attention needs one: the softmax of n equal scores is that of one score, higher by log(n). It is
the same mathematics, and saves most of that half's work in the first layers, before which there are few convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastfit_watch.engine.networks.reference_attention import KeysValues

_WORTH_IT = 4  # so many times fewer tokens, at least: a layer whose halves differ takes two calls


@dataclass(frozen=True)
class Axis:
    """The rows, or the columns, of a picture that was of one colour.

    length : how many. begin, end : how many of the first and of the last may be unlike those between them.
    """

    length: int
    begin: int = 0
    end: int = 0

    def convolved(self, reach: int) -> Axis:
        """After convolutions that see `reach` tokens to either side."""
        return Axis(self.length, self.begin + reach, self.end + reach)

    def halved(self) -> Axis:
        """After a 3x3 convolution of every second token, padded by one."""
        length = (self.length - 1) // 2 + 1
        # Token t sees 2t - 1 to 2t + 1. The first that sees nothing odd at the begin is past (begin + 1) / 2; at the
        # end, the first that does is at half of what is left, rounded up.
        return Axis(length, (self.begin + 2) // 2, length - max(0, self.length - self.end) // 2)

    @property
    def distinct(self) -> list[tuple[int, int]]:
        """One place of each kind, and how many there are of it."""
        between = self.length - self.begin - self.end
        if between <= 1:
            return [(place, 1) for place in range(self.length)]
        last = self.length - self.end
        return [
            *((place, 1) for place in range(self.begin)),
            (self.begin + between // 2, between),
            *((place, 1) for place in range(last, self.length)),
        ]


@dataclass(frozen=True)
class TokenMerge:
    """The kinds of tokens of one layer, for a picture of zeros. Tokens are counted row by row."""

    rows: Axis
    columns: Axis

    @property
    def tokens(self) -> int:
        """How many tokens remain."""
        distinct, every = (len(self.rows.distinct) * len(self.columns.distinct), self.rows.length * self.columns.length)
        return distinct if distinct * _WORTH_IT <= every else every

    @property
    def is_worth_it(self) -> bool:
        """Do few enough remain? If not, all are kept."""
        return self.tokens < self.rows.length * self.columns.length

    def merge(self, layer: KeysValues) -> KeysValues:
        """One token of each kind, with the number of its like; the same tokens where merging is not worth it."""
        if not self.is_worth_it:
            return layer
        kinds = [
            (row * self.columns.length + column, rows * columns)
            for row, rows in self.rows.distinct
            for column, columns in self.columns.distinct
        ]
        paths, copies = (torch.tensor(numbers, device=layer.keys.device) for numbers in zip(*kinds, strict=True))
        return KeysValues(_pick(layer.keys, paths), _pick(layer.values, paths), copies)


def _pick(part: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
    # Kept as (B, tokens, heads, head width), like all keys and values.
    return part.transpose(1, 2).index_select(1, paths).transpose(1, 2)
