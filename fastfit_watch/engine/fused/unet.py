"""FastFit's UNet for inference: the weights of `unet.FastFitUNet` in another order of work, equal up to rounding.

What a reference or a step does not need is not done: one product for queries, keys and values; time embeddings of all
steps at once; reference keys and values where attention reads them, with only the own tokens written at each step; the
reference pass ends with its last keys and values. Holds weights only, so two threads may share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastfit_watch.engine.fused.attention_backends import Attention
from fastfit_watch.engine.fused.attention_buffers import AttentionBuffers, LayerShape
from fastfit_watch.engine.fused.blocks import Convolution, Norm, Resnet, enlarge, round_up
from fastfit_watch.engine.fused.cuda_graphs import Recorder
from fastfit_watch.engine.fused.token_merging import Axis, TokenMerge
from fastfit_watch.engine.fused.unet_blocks import (
    ResnetTransformerBlock,
    TimeEmbeddings,
    Transformer,
    UNetLevel,
    repeat,
)
from fastfit_watch.engine.networks.reference_attention import KeysValues, ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.transfer import upload

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
        self._embeddings = TimeEmbeddings()
        self._down = [
            UNetLevel(
                self._rooms(block, f"down_blocks.{index}"),
                Convolution.of(block.downsamplers[0].conv) if block.downsamplers else None,
            )
            for index, block in enumerate(unet.down_blocks)
        ]
        self._middle = self._middle_rooms(unet.mid_block)
        self._up = [
            UNetLevel(
                self._rooms(block, f"up_blocks.{index}"),
                Convolution.of(block.upsamplers[0].conv) if block.upsamplers else None,
            )
            for index, block in enumerate(unet.up_blocks)
        ]
        self._embeddings.join()
        self._last_norm = Norm.of(unet.conv_norm_out)
        self._last = Convolution.of(unet.conv_out).padded(unet.conv_out.in_channels, round_up(LATENT_CHANNELS))
        rooms = [room for stage in (*self._down, UNetLevel(self._middle, None), *self._up) for room in stage.rooms]
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
        steps = upload(torch.tensor(timesteps), self.device)
        sinusoids = self._unet.time_proj(steps).to(self.dtype)
        return self._embeddings.offsets(self._unet.time_embedding(sinusoids))

    def read_reference(self, latents: Tensor, labels: Tensor) -> ReferenceCache:
        """Read garments, (B, 4, h, w), into keys and values (FastFit inference specification, section 1.4)."""
        return self._readings(self._keep, latents.to(self.dtype), labels)

    def read_nothing(self, size: tuple[int, int], label: int) -> ReferenceCache:
        """Read a latent of zeros, (height, width): what the unconditional half sees of a slot (section 2, step 8)."""
        latents = torch.zeros((1, LATENT_CHANNELS, *size), device=self.device)
        whole = self.read_reference(latents, torch.full((1,), label, device=self.device))
        alike = self.alike(size)
        layers = {name: alike[name].merge(layer) if name in alike else layer for name, layer in whole.layers.items()}
        return ReferenceCache(layers)

    def alike(self, size: tuple[int, int]) -> dict[str, TokenMerge]:
        """Which tokens of a latent of zeros, (height, width), are equal in the layers on the way down."""
        found = {}
        axes = [Axis(length).convolved(self._doors["reference"].reach) for length in size]
        for stage in self._down:
            for room in stage.rooms:
                axes = [axis.convolved(room.resnet.reach) for axis in axes]
                if room.transformer is not None:
                    found[room.transformer.layer] = TokenMerge(*axes)
            if stage.resize is not None:
                axes = [axis.halved() for axis in axes]
        return found

    @property
    def kept_bytes(self) -> int:
        """Memory that recordings hold between looks."""
        return self._readings.kept_bytes

    def drop_caches(self) -> None:
        """Give the memory of recordings back."""
        self._readings.drop_caches()

    def denoise(self, sample: Tensor, timestep: int, references: ReferenceCache | None) -> Tensor:
        """Predict the noise in (B, 9, h, w) once, as `FastFitUNet.denoise` does; the loop uses `predict`."""
        batch, channels, height, width = sample.shape
        tokens = {} if references is None else references.tokens_by_layer
        buffers = AttentionBuffers.empty(self.layer_shapes((height, width)), batch, tokens, self.device, self.dtype)
        if references is not None:
            for row in range(batch):
                buffers.fill(row, [references.half(row)])
        picture = functional.pad(sample.to(self.dtype).permute(0, 2, 3, 1), (0, self.input_channels - channels))
        return self.predict(picture, self.time_offsets([timestep]), buffers).permute(0, 3, 1, 2)

    def predict(self, picture: Tensor, offsets: Tensor, buffers: AttentionBuffers) -> Tensor:
        """Predict the noise in a sample (section 1.5).

        Parameters
        ----------
        picture : (B, h, w, `input_channels`): noisy latents 4, mask 1, masked person's latents 4, then zeros. Both
            halves of guidance begin with the same picture, and are one until they first see references.
        offsets : a row of `time_offsets`, (1, offsets).
        buffers : filled with references for B rows, or for the 2B rows of both halves; the sample's own keys and values
            are written into their ends.

        Returns
        -------
        (B or 2B, h, w, 4).
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
        rows = len(features) if buffers is None else buffers.rows
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
                joined = torch.cat([features, repeat(skips.pop(), rows)], dim=-1)
                features = room(joined, offsets, buffers, collected, room is self._last_room)
                if collected is not None and room is self._last_room:
                    return features  # the rest of a reference pass is thrown away
            if stage.resize is not None:
                # A side that is no multiple of 8 loses a pixel on the way down; the waiting skip knows the way back.
                features = stage.resize.with_bias(enlarge(features, (skips[-1].shape[1], skips[-1].shape[2])))
        return features

    def _rooms(self, block: Any, name: str) -> list[ResnetTransformerBlock]:
        attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
        return [
            ResnetTransformerBlock(
                Resnet(resnet),
                self._embeddings.add(resnet),
                None if attention is None else self._transformer(attention, f"{name}.attentions.{index}"),
            )
            for index, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True))
        ]

    def _middle_rooms(self, block: Any) -> list[ResnetTransformerBlock]:
        """The middle block has a resnet more than it has transformers, at its end."""
        rooms = []
        for index, resnet in enumerate(block.resnets):
            attention = block.attentions[index] if index < len(block.attentions) else None
            name = f"mid_block.attentions.{index}"
            transformer = None if attention is None else self._transformer(attention, name)
            rooms.append(ResnetTransformerBlock(Resnet(resnet), self._embeddings.add(resnet), transformer))
        return rooms

    def _transformer(self, module: Any, name: str) -> Transformer:
        return Transformer(module, f"{name}.transformer_blocks.0.attn1", self._attention)
