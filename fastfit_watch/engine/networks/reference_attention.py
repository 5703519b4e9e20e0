"""Self-attention that also sees the garments: reference keys and values, computed once and read at every step.

No module keeps anything between calls. A reference pass fills the dictionary it is given, a denoising pass reads the
cache it is given; both travel as diffusers' `cross_attention_kwargs`. So one network serves two threads, and a look
that fails half-way leaves nothing behind for the next person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of one attention layer, each (B, heads, tokens, head width).

    copies : int64 (tokens,), how many equal tokens each stands for (see `alike`); None: each for itself alone.
    """

    keys: Tensor
    values: Tensor
    copies: Tensor | None = None

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
