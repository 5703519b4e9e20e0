"""The parts that FastFit's UNet is made of, in the form that inference wants: resnets with their transformers, by size.

Pictures are (B, h, w, channels). Under guidance, B grows to both halves where they first see references.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastfit_watch.engine.fused import kernels
from fastfit_watch.engine.fused.attention_backends import Attention
from fastfit_watch.engine.fused.attention_buffers import AttentionBuffers
from fastfit_watch.engine.fused.blocks import Convolution, Norm, Resnet
from fastfit_watch.engine.networks.reference_attention import KeysValues, split_heads


class TimeEmbeddings:
    """The time embedding layers of all resnets as one product; the resnets' first biases ride along."""

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self._biases: list[Tensor] = []
        self._width = 0
        self._weight = self._bias = torch.empty(0)

    def add(self, resnet: Any) -> slice:
        """Take in one resnet's layer; returns its place among the offsets."""
        self._weights.append(resnet.time_emb_proj.weight.detach())
        self._biases.append(resnet.time_emb_proj.bias.detach() + resnet.conv1.bias.detach())
        begin, self._width = self._width, self._width + len(self._biases[-1])
        return slice(begin, self._width)

    def join(self) -> None:
        """Put all layers together."""
        self._weight, self._bias = torch.cat(self._weights), torch.cat(self._biases)
        self._weights.clear()
        self._biases.clear()

    def offsets(self, embedding: Tensor) -> Tensor:
        """(B, embedding) to (B, offsets)."""
        return functional.linear(functional.silu(embedding), self._weight, self._bias)


class Transformer:
    """One transformer block with its projections (section 1.2)."""

    def __init__(self, module: Any, layer: str, attention: Attention) -> None:
        block = module.transformer_blocks[0]
        attn = block.attn1
        self.layer, self.heads = layer, attn.heads
        self._attention = attention
        self._norm = Norm.of(module.norm)
        self._enter = module.proj_in.weight.detach()[:, :, 0, 0].contiguous(), module.proj_in.bias.detach()
        self._leave = module.proj_out.weight.detach()[:, :, 0, 0].contiguous(), module.proj_out.bias.detach()
        self._norms = [(norm.weight.detach(), norm.bias.detach(), norm.eps) for norm in (block.norm1, block.norm3)]
        self._project = torch.cat([attn.to_q.weight, attn.to_k.weight, attn.to_v.weight]).detach()
        self._mix = attn.to_out[0].weight.detach(), attn.to_out[0].bias.detach()
        self._widen = block.ff.net[0].proj
        self._narrow = block.ff.net[2].weight.detach(), block.ff.net[2].bias.detach()
        self.width = self._project.shape[1]

    def __call__(
        self, picture: Tensor, buffers: AttentionBuffers | None, collected: dict[str, KeysValues] | None, last: bool
    ) -> Tensor:
        """(B, h, w, C) to the same. With `last`, the work ends with the keys and values."""
        batch, height, width, _ = picture.shape
        tokens = functional.linear(self._norm(picture, silu=False), *self._enter).view(batch, height * width, -1)
        projected = functional.linear(kernels.norm(tokens, *self._norms[0]), self._project)
        query, keys, values = (split_heads(part, self.heads) for part in projected.chunk(3, dim=-1))
        if collected is not None:
            collected[self.layer] = KeysValues(keys, values)
            if last:
                return picture
        if buffers is None:
            mixed = self._attention(query, keys, values).transpose(1, 2).flatten(2)
        else:
            mixed = buffers.attend(self.layer, query, keys, values, self._attention)
            picture, tokens = repeat(picture, buffers.rows), repeat(tokens, buffers.rows)
        mixed = functional.linear(mixed, self._mix[0])
        tokens, normal = kernels.add_norm(mixed, tokens, self._mix[1], *self._norms[1])
        wide = kernels.gate(self._widen(normal))
        tokens = kernels.add(functional.linear(wide, self._narrow[0]), tokens, self._narrow[1])
        left = functional.linear(tokens, self._leave[0]).view(picture.shape)
        return kernels.add(left, picture, self._leave[1])


@dataclass(frozen=True)
class ResnetTransformerBlock:
    """A resnet and the transformer after it, if there is one. place: the resnet's part of the offsets."""

    resnet: Resnet
    place: slice
    transformer: Transformer | None

    def __call__(
        self,
        picture: Tensor,
        offsets: Tensor,
        buffers: AttentionBuffers | None,
        collected: dict[str, KeysValues] | None,
        last: bool = False,
    ) -> Tensor:
        picture = self.resnet(picture, offsets[:, self.place])
        return picture if self.transformer is None else self.transformer(picture, buffers, collected, last)


def repeat(tensor: Tensor, rows: int) -> Tensor:
    """The same for every half of guidance: (B, ...) to (rows, ...)."""
    return tensor if len(tensor) == rows else tensor.repeat(rows // len(tensor), *[1] * (tensor.ndim - 1))


@dataclass(frozen=True)
class UNetLevel:
    """Rooms of one size, and the convolution that leads to the next size."""

    rooms: list[ResnetTransformerBlock]
    resize: Convolution | None
