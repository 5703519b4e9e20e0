"""Self-attention that also sees the garments: reference keys and values, computed once and read at every step.

No module keeps anything between calls. A reference pass fills the dictionary it is given, a denoising pass reads the
cache it is given; both travel as diffusers' `cross_attention_kwargs`. So one network serves two threads, and a look
that fails half-way leaves nothing behind for the next person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of one attention layer, each (B, heads, tokens, head width)."""

    keys: Tensor
    values: Tensor

    @classmethod
    def copy(cls, keys: Tensor, values: Tensor) -> KeysValues:
        """Copies, laid out (B, tokens, heads, head width): as a projection gives and buffers keep them."""
        return cls(
            *(
                tensor.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)
                for tensor in (keys, values)
            )
        )


@dataclass(frozen=True)
class ReferenceCache:
    """What the denoising pass sees of the garments: keys and values by attention layer name. Never changed once made.

    The rows of a batch are the samples of the denoising batch: under classifier-free guidance first the unconditional
    half, then the conditional one.
    """

    layers: Mapping[str, KeysValues]

    @property
    def tokens_by_layer(self) -> dict[str, int]:
        """Reference tokens of every layer."""
        return {name: layer.keys.shape[2] for name, layer in self.layers.items()}

    @property
    def tokens(self) -> int:
        """Reference tokens at the finest level: latent pixels of all garments together."""
        return max(layer.keys.shape[2] for layer in self.layers.values())

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers.values())

    def half(self, row: int) -> ReferenceCache:
        """One row alone, as the half of a guided batch of one. Shares its memory with the whole."""
        one = slice(row, row + 1)
        return ReferenceCache({name: KeysValues(kv.keys[one], kv.values[one]) for name, kv in self.layers.items()})

    @classmethod
    def stack(cls, rows: Sequence[ReferenceCache]) -> ReferenceCache:
        """Put caches of one garment on top of each other along the batch axis: the opposite of `half`."""
        if len(rows) == 1:
            return rows[0]
        return cls(
            {
                name: KeysValues(
                    torch.cat([row.layers[name].keys for row in rows]),
                    torch.cat([row.layers[name].values for row in rows]),
                )
                for name in rows[0].layers
            }
        )

    @classmethod
    def join(cls, caches: Sequence[ReferenceCache]) -> ReferenceCache:
        """Put garments side by side along the token axis; their order changes the result by rounding only.

        Raises
        ------
        ValueError : no caches. A denoising pass without garments takes None instead.
        """
        if not caches:
            raise ValueError("There is nothing to join: pass at least one reference cache.")
        return cls(
            {
                name: KeysValues(
                    torch.cat([cache.layers[name].keys for cache in caches], dim=2),
                    torch.cat([cache.layers[name].values for cache in caches], dim=2),
                )
                for name in caches[0].layers
            }
        )


class LayerShape(Protocol):
    """Size of one attention layer: tokens of the sample itself, heads, and channels of all heads."""

    @property
    def tokens(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def channels(self) -> int: ...


@dataclass(frozen=True)
class AttentionBuffers:
    """Keys and values of all layers in one piece each: the references first, the sample's own tokens at the end.

    References are filled in once for each look, own tokens at every step. All tensors are (B, heads, tokens, head
    width), laid out (B, tokens, heads, head width). own: how many tokens at the end are the sample's own.
    """

    layers: Mapping[str, KeysValues]
    own: Mapping[str, int]

    @classmethod
    def empty(
        cls,
        shapes: Mapping[str, LayerShape],
        batch: int,
        reference_tokens: Mapping[str, int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> AttentionBuffers:
        """Take memory for `batch` rows. reference_tokens: by layer; a layer that is not named sees no references."""
        layers = {}
        for name, shape in shapes.items():
            size = (batch, reference_tokens.get(name, 0) + shape.tokens, shape.heads, shape.channels // shape.heads)
            keys, values = (torch.empty(size, device=device, dtype=dtype).transpose(1, 2) for _ in range(2))
            layers[name] = KeysValues(keys, values)
        return cls(layers, {name: shape.tokens for name, shape in shapes.items()})

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers.values())

    def rows(self, chosen: slice) -> AttentionBuffers:
        """The same memory, seen by these rows of the batch only."""
        return AttentionBuffers(
            {name: KeysValues(layer.keys[chosen], layer.values[chosen]) for name, layer in self.layers.items()},
            self.own,
        )

    def fill(self, references: Sequence[ReferenceCache]) -> None:
        """Put garments side by side; their order changes the result by rounding only. They must fill it exactly."""
        for name, layer in self.layers.items():
            room, given = layer.keys.shape[2] - self.own[name], sum(c.layers[name].keys.shape[2] for c in references)
            if given != room:
                raise ValueError(f"{name}: {given} reference tokens do not fit in {room}.")
            begin = 0
            for cache in references:
                seen = cache.layers[name]
                end = begin + seen.keys.shape[2]
                layer.keys[:, :, begin:end] = seen.keys
                layer.values[:, :, begin:end] = seen.values
                begin = end

    def complete(self, name: str, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the own keys and values of a layer; returns all it attends to."""
        layer, begin = self.layers[name], -self.own[name]
        layer.keys[:, :, begin:] = keys
        layer.values[:, :, begin:] = values
        return layer.keys, layer.values


class ReferenceAttention:
    """diffusers attention processor of one layer (FastFit inference specification, sections 1.4 and 1.5)."""

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        collect: dict[str, KeysValues] | None = None,
        references: ReferenceCache | None = None,
    ) -> Tensor:
        """Attend over a layer's own tokens, after those of the references where there are any.

        Parameters
        ----------
        hidden_states : (B, tokens, channels).
        encoder_hidden_states, attention_mask : part of diffusers' call; this network has neither.
        collect : receives this layer's own keys and values (the reference pass).
        references : keys and values to attend to besides the layer's own (the denoising pass).

        Returns
        -------
        (B, tokens, channels).
        """
        query = split_heads(attn.to_q(hidden_states), attn.heads)
        keys = split_heads(attn.to_k(hidden_states), attn.heads)
        values = split_heads(attn.to_v(hidden_states), attn.heads)
        if collect is not None:
            collect[self.layer] = KeysValues(keys, values)
        if references is not None:
            seen = references.layers[self.layer]
            keys = torch.cat([seen.keys, keys], dim=2)
            values = torch.cat([seen.values, values], dim=2)
        mixed = functional.scaled_dot_product_attention(query, keys, values)
        output: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return output


def split_heads(projected: Tensor, heads: int) -> Tensor:
    """(B, tokens, channels) to (B, heads, tokens, channels / heads)."""
    batch, tokens, _ = projected.shape
    return projected.view(batch, tokens, heads, -1).transpose(1, 2)
