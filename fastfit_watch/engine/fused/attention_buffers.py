"""What each attention layer reads at every step of a run: memory taken once, references filled in once for each look.

The rows of a batch are, under guidance, first the unconditional halves of all looks and then the conditional ones. In a
layer where the former see merged tokens (see `alike`), each half has its own section of memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastfit_watch.engine.fused.attention_backends import Attention
from fastfit_watch.engine.networks.reference_attention import KeysValues, ReferenceCache

SPARE_CHANNELS = 8
"""More channels of heads with merged tokens: queries hold ones there, keys the logarithm of how many they stand for."""


@dataclass(frozen=True)
class LayerShape:
    """What one attention layer sees: size is (height, width) of its tokens, channels are those of all heads."""

    size: tuple[int, int]
    heads: int
    channels: int

    @property
    def tokens(self) -> int:
        """Tokens of the sample itself."""
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Section:
    """What some rows of a batch attend to in one layer: references first, the rows' own tokens at the end.

    keys, values : (rows, heads, tokens, head width), laid out (rows, tokens, heads, head width). own : how many tokens
    at the end are the sample's own. merged : may a token stand for many? Then each head is wider by `SPARE_CHANNELS`.
    """

    keys: Tensor
    values: Tensor
    own: int
    merged: bool

    @classmethod
    def empty(
        cls, shape: LayerShape, rows: int, references: int, device: torch.device, dtype: torch.dtype, *, merged: bool
    ) -> Section:
        """Take memory for so many reference tokens and the own ones."""
        width = shape.channels // shape.heads + (SPARE_CHANNELS if merged else 0)
        size = (rows, references + shape.tokens, shape.heads, width)
        # Zeros: what is not written in a merged section must add nothing.
        keys, values = (torch.zeros(size, device=device, dtype=dtype).transpose(1, 2) for _ in range(2))
        return cls(keys, values, shape.tokens, merged)

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return self.keys.shape[0]

    @property
    def scores(self) -> int:
        """Pairs of query and key that a step compares here, in one head."""
        return self.rows * self.own * self.keys.shape[2]

    def only(self, rows: slice) -> Section:
        """The same memory, seen by some of its rows."""
        return Section(self.keys[rows], self.values[rows], self.own, self.merged)

    def fill(self, row: int, name: str, references: Sequence[KeysValues]) -> None:
        """Put garments side by side, (1 or this row's batch, heads, tokens, head width) each; they must fill it."""
        room, given = self.keys.shape[2] - self.own, sum(seen.keys.shape[2] for seen in references)
        if given != room:
            raise ValueError(f"{name}: {given} reference tokens do not fit in {room}.")
        begin = 0
        for seen in references:
            end, width = begin + seen.keys.shape[2], seen.keys.shape[3]
            self.keys[row, :, begin:end, :width] = seen.keys[0]
            self.values[row, :, begin:end, :width] = seen.values[0]
            if self.merged:
                self._weigh(row, slice(begin, end), seen.copies, width)
            begin = end

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, attention: Attention) -> Tensor:
        """Write the rows' own keys and values, then attend to all: (rows, tokens, channels)."""
        width = query.shape[3]
        self.keys[:, :, -self.own :, :width] = keys
        self.values[:, :, -self.own :, :width] = values
        if not self.merged:
            return attention(query, self.keys, self.values).transpose(1, 2).flatten(2)
        query = functional.pad(query, (0, SPARE_CHANNELS), value=1.0)
        mixed = attention(query, self.keys, self.values, scale=1 / math.sqrt(width))
        return mixed[..., :width].transpose(1, 2).flatten(2)

    def _weigh(self, row: int, paths: slice, copies: Tensor | None, width: int) -> None:
        """Write log(copies) where the queries' ones find it, in two parts: bfloat16 has 8 digits."""
        size = paths.stop - paths.start
        counts = torch.ones(size, device=self.keys.device) if copies is None else copies.float()
        wanted = counts.log() * math.sqrt(width)
        coarse = wanted.to(self.keys.dtype)
        self.keys[row, :, paths, width] = coarse
        self.keys[row, :, paths, width + 1] = (wanted - coarse.float()).to(self.keys.dtype)


@dataclass(frozen=True)
class AttentionBuffers:
    """The sections of every layer, in the order of the rows: one for all, or one for each half of guidance."""

    layers: Mapping[str, tuple[Section, ...]]
    rows: int

    @classmethod
    def empty(
        cls,
        shapes: Mapping[str, LayerShape],
        rows: int,
        references: Mapping[str, int],
        device: torch.device,
        dtype: torch.dtype,
        unconditional: Mapping[str, int] | None = None,
    ) -> AttentionBuffers:
        """Take memory.

        Parameters
        ----------
        rows : of the batch; under guidance half of them are unconditional.
        references : reference tokens of the (conditional) rows by layer; a layer that is not named sees none.
        unconditional : the same of the unconditional rows; None where there are none, or where they see as many.
        """
        layers = {}
        for name, shape in shapes.items():
            many = references.get(name, 0)
            few = many if unconditional is None else unconditional.get(name, 0)
            parts = [(rows, many, False)] if few == many else [(rows // 2, few, True), (rows // 2, many, False)]
            layers[name] = tuple(
                Section.empty(shape, count, tokens, device, dtype, merged=merged) for count, tokens, merged in parts
            )
        return cls(layers, rows)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(part.keys.nbytes + part.values.nbytes for parts in self.layers.values() for part in parts)

    def conditional(self) -> AttentionBuffers:
        """The same memory, for a step without guidance: the second half of the rows."""
        half = self.rows // 2
        layers = {
            name: (parts[-1].only(slice(half, None)) if len(parts) == 1 else parts[-1],)
            for name, parts in self.layers.items()
        }
        return AttentionBuffers(layers, half)

    def fill(self, row: int, references: Sequence[ReferenceCache]) -> None:
        """Put one row's garments, caches of one row, side by side; their order changes the result by rounding only.

        Raises
        ------
        ValueError : they do not fill the memory exactly.
        """
        for name, parts in self.layers.items():
            place, part = row, parts[0]
            if place >= part.rows:
                place, part = place - part.rows, parts[1]
            part.fill(place, name, [cache.layers[name] for cache in references])

    def attend(self, name: str, query: Tensor, keys: Tensor, values: Tensor, attention: Attention) -> Tensor:
        """Attend in one layer: (rows, tokens, channels).

        query, keys, values : (rows, heads, tokens, head width), of the sample itself; half as many rows where both
        halves of guidance are still equal.
        """
        if len(query) < self.rows:
            query, keys, values = (part.repeat(self.rows // len(part), 1, 1, 1) for part in (query, keys, values))
        mixed, begin = [], 0
        for part in self.layers[name]:
            rows = slice(begin, begin + part.rows)
            mixed.append(part.attend(query[rows], keys[rows], values[rows], attention))
            begin = rows.stop
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
