"""FastFit's UNet for inference: the weights of `unet.FastFitUNet` in another order of work, equal up to rounding.

What a reference or a step does not need is not done: one product for queries, keys and values; time embeddings of all
steps at once; reference keys and values where attention reads them, with only the own tokens written at each step; the
reference pass ends with its last keys and values. Holds weights only, so two threads may share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastfit_watch.engine import kernels
from fastfit_watch.engine.attention import AttentionBuffers, KeysValues, ReferenceCache, split_heads
from fastfit_watch.engine.backends import Attention
from fastfit_watch.engine.blocks import Convolution, Norm, Resnet, enlarge, round_up
from fastfit_watch.engine.graphs import Recorder
from fastfit_watch.engine.unet import FastFitUNet

LATENT_CHANNELS = 4


class FusedUNet:
    """Predicts noise from latents, (B, h, w, channels), while attending to garments. See `predict`."""

    def __init__(self, unet: FastFitUNet, attention: Attention) -> None:
        self._unet, self._attention = unet, attention
        self.input_channels = round_up(unet.config.in_channels)
        self._doors = {
            door: Convolution.of(module).padded(round_up(module.in_channels), module.out_channels)
            for door, module in (("sample", unet.conv_in), ("reference", unet.condition_conv_in))
        }
        self._embeddings = _Embeddings()
        self._down = [
            _Stage(
                self._rooms(block, f"down_blocks.{index}"),
                Convolution.of(block.downsamplers[0].conv) if block.downsamplers else None,
            )
            for index, block in enumerate(unet.down_blocks)
        ]
        self._middle = self._middle_rooms(unet.mid_block)
        self._up = [
            _Stage(
                self._rooms(block, f"up_blocks.{index}"),
                Convolution.of(block.upsamplers[0].conv) if block.upsamplers else None,
            )
            for index, block in enumerate(unet.up_blocks)
        ]
        self._embeddings.join()
        self._last_norm = Norm.of(unet.conv_norm_out)
        self._last = Convolution.of(unet.conv_out).padded(unet.conv_out.in_channels, round_up(LATENT_CHANNELS))
        rooms = [room for stage in (*self._down, _Stage(self._middle, None), *self._up) for room in stage.rooms]
        self.layers = {room.transformer.layer: room.transformer for room in rooms if room.transformer is not None}
        self._last_room = [room for room in rooms if room.transformer is not None][-1]
        self._readings = Recorder(self._read)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._last.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and activations."""
        return self._last.weight.dtype

    def time_offsets(self, timesteps: Sequence[int]) -> Tensor:
        """What each timestep adds in all resnets: (timesteps, offsets)."""
        steps = torch.tensor(timesteps, device=self.device)
        sinusoids = self._unet.time_proj(steps).to(self.dtype)
        return self._embeddings.offsets(self._unet.time_embedding(sinusoids))

    def read_reference(self, latents: Tensor, labels: Tensor) -> ReferenceCache:
        """Read garments, (B, 4, h, w), into keys and values (FastFit inference specification, section 1.4)."""
        return self._readings(self._keep, latents.to(self.dtype), labels)

    @property
    def kept_bytes(self) -> int:
        """Memory that recordings hold between looks."""
        return self._readings.kept_bytes

    def forget(self) -> None:
        """Give the memory of recordings back."""
        self._readings.forget()

    def denoise(self, sample: Tensor, timestep: int, references: ReferenceCache | None) -> Tensor:
        """Predict the noise in (B, 9, h, w) once, as `FastFitUNet.denoise` does; the loop uses `predict`."""
        batch, channels, height, width = sample.shape
        tokens = {} if references is None else references.tokens_by_layer
        buffers = AttentionBuffers.empty(self.layer_shapes((height, width)), batch, tokens, self.device, self.dtype)
        if references is not None:
            buffers.fill([references])
        picture = functional.pad(sample.to(self.dtype).permute(0, 2, 3, 1), (0, self.input_channels - channels))
        return self.predict(picture, self.time_offsets([timestep]), buffers).permute(0, 3, 1, 2)

    def predict(self, picture: Tensor, offsets: Tensor, buffers: AttentionBuffers) -> Tensor:
        """Predict the noise in a sample (section 1.5).

        Parameters
        ----------
        picture : (B, h, w, `input_channels`): noisy latents 4, mask 1, masked person's latents 4, then zeros.
        offsets : a row of `time_offsets`, (1, offsets).
        buffers : filled with references; the sample's own keys and values are written into their ends.

        Returns
        -------
        (B, h, w, 4).
        """
        features = self._run(self._doors["sample"].with_bias(picture), offsets, buffers, None)
        features = self._last.with_bias(self._last_norm(features))
        return features[..., :LATENT_CHANNELS]

    def layer_shapes(self, size: tuple[int, int]) -> dict[str, LayerShape]:
        """Tokens and width of every attention layer for latents of (height, width)."""
        sizes = [size]
        for stage in self._down:
            if stage.resize is not None:
                height, width = sizes[-1]
                sizes.append(((height - 1) // 2 + 1, (width - 1) // 2 + 1))
        levels = {f"down_blocks.{index}.": min(index, len(sizes) - 1) for index in range(len(self._down))}
        levels |= {f"up_blocks.{index}.": len(sizes) - 1 - index for index in range(len(self._up))}
        levels["mid_block."] = len(sizes) - 1
        return {
            layer: LayerShape(
                sizes[next(level for start, level in levels.items() if layer.startswith(start))],
                transformer.heads,
                transformer.width,
            )
            for layer, transformer in self.layers.items()
        }

    def _read(self, latents: Tensor, labels: Tensor) -> list[Tensor]:
        """Keys and values of every layer in turn, as parts of larger tensors."""
        offsets = self._embeddings.offsets(self._unet.class_embedding(labels).to(self.dtype))
        picture = latents.permute(0, 2, 3, 1)
        channels = self._doors["reference"].weight.shape[1]
        features = self._doors["reference"].with_bias(functional.pad(picture, (0, channels - picture.shape[-1])))
        collected: dict[str, KeysValues] = {}
        self._run(features, offsets, None, collected)
        return [part for layer in self.layers for part in (collected[layer].keys, collected[layer].values)]

    def _keep(self, parts: Sequence[Tensor]) -> ReferenceCache:
        # Copies: the parts would keep the queries in memory as well, and a recording writes over them.
        layers = zip(self.layers, parts[::2], parts[1::2], strict=True)
        return ReferenceCache({layer: KeysValues.copy(keys, values) for layer, keys, values in layers})

    def _run(
        self,
        features: Tensor,
        offsets: Tensor,
        buffers: AttentionBuffers | None,
        collected: dict[str, KeysValues] | None,
    ) -> Tensor:
        skips = [features]
        for stage in self._down:
            for room in stage.rooms:
                features = room(features, offsets, buffers, collected)
                skips.append(features)
            if stage.resize is not None:
                features = stage.resize.with_bias(features)
                skips.append(features)
        for room in self._middle:
            features = room(features, offsets, buffers, collected)
        for stage in self._up:
            for room in stage.rooms:
                joined = torch.cat([features, skips.pop()], dim=-1)
                features = room(joined, offsets, buffers, collected, room is self._last_room)
                if collected is not None and room is self._last_room:
                    return features  # the rest of a reference pass is thrown away
            if stage.resize is not None:
                # A side that is no multiple of 8 loses a pixel on the way down; the waiting skip knows the way back.
                features = stage.resize.with_bias(enlarge(features, (skips[-1].shape[1], skips[-1].shape[2])))
        return features

    def _rooms(self, block: Any, name: str) -> list[_Room]:
        attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
        return [
            _Room(
                Resnet(resnet),
                self._embeddings.add(resnet),
                None if attention is None else self._transformer(attention, f"{name}.attentions.{index}"),
            )
            for index, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True))
        ]

    def _middle_rooms(self, block: Any) -> list[_Room]:
        """The middle block has a resnet more than it has transformers, at its end."""
        rooms = []
        for index, resnet in enumerate(block.resnets):
            attention = block.attentions[index] if index < len(block.attentions) else None
            name = f"mid_block.attentions.{index}"
            transformer = None if attention is None else self._transformer(attention, name)
            rooms.append(_Room(Resnet(resnet), self._embeddings.add(resnet), transformer))
        return rooms

    def _transformer(self, module: Any, name: str) -> _Transformer:
        return _Transformer(module, f"{name}.transformer_blocks.0.attn1", self._attention)


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


class _Embeddings:
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


class _Transformer:
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
        if buffers is not None:
            keys, values = buffers.complete(self.layer, keys, values)
        mixed = self._attention(query, keys, values).transpose(1, 2).flatten(2)
        mixed = functional.linear(mixed, self._mix[0])
        tokens, normal = kernels.add_norm(mixed, tokens, self._mix[1], *self._norms[1])
        wide = kernels.gate(self._widen(normal))
        tokens = kernels.add(functional.linear(wide, self._narrow[0]), tokens, self._narrow[1])
        left = functional.linear(tokens, self._leave[0]).view(picture.shape)
        return kernels.add(left, picture, self._leave[1])


@dataclass(frozen=True)
class _Room:
    """A resnet and the transformer after it, if there is one. place: the resnet's part of the offsets."""

    resnet: Resnet
    place: slice
    transformer: _Transformer | None

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


@dataclass(frozen=True)
class _Stage:
    """Rooms of one size, and the convolution that leads to the next size."""

    rooms: list[_Room]
    resize: Convolution | None
