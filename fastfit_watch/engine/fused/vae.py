"""The VAE for inference: the weights of diffusers' `AutoencoderKL` in the order of work of `blocks`.

Encodes and decodes as `AutoencoderKL` does, through the same two calls, up to rounding. Holds weights only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from fastfit_watch.engine.fused.attention_backends import Attention
from fastfit_watch.engine.fused.blocks import Convolution, Norm, Resnet, enlarge, round_up
from fastfit_watch.engine.fused.cuda_graphs import Recorder


class FusedVAE:
    """Pixels to the distribution of their latents, and latents to pixels."""

    def __init__(self, vae: AutoencoderKL, attention: Attention, *, records: bool = True) -> None:
        self.scaling_factor = float(vae.config.scaling_factor)
        self.latent_channels = int(vae.config.latent_channels)
        self.stride = 1 << (len(vae.config.block_out_channels) - 1)
        self._encoder = _Way(vae.encoder, attention, vae.encoder.down_blocks)
        self._decoder = _Way(vae.decoder, attention, vae.decoder.up_blocks)
        self._quantise = None if vae.quant_conv is None else Convolution.of(vae.quant_conv)
        self._restore = None if vae.post_quant_conv is None else Convolution.of(vae.post_quant_conv)
        self._encodings = Recorder(self._encode, records=records)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._decoder.first.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and activations."""
        return self._decoder.first.weight.dtype

    @property
    def widest_head(self) -> int | None:
        """Channels of the attention layer, which has one head; None where there is no such layer."""
        attention = self._decoder.attention
        return None if attention is None else int(attention.channels)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] to mean and standard deviation of the latents, float32 (B, 4, H/8, W/8), unscaled."""
        mean, deviation = self._encodings(
            lambda moments: [each.clone() for each in moments], pixels.to(self.device, self.dtype)
        )
        return mean, deviation

    @property
    def kept_bytes(self) -> int:
        """Memory that recordings hold between looks."""
        return self._encodings.kept_bytes

    def drop_caches(self) -> None:
        """Give the memory of recordings back."""
        self._encodings.drop_caches()

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self._encoder
        picture = encoder.enter(pixels)
        for stage in encoder.stages:
            picture = stage.resnets_of(picture)
            if stage.resize is not None:
                # One row and column of zeros, at the end only.
                picture = stage.resize.with_bias(functional.pad(picture, (0, 0, 0, 1, 0, 1)))
        picture = encoder.leave(encoder.middle(picture))[..., : 2 * self.latent_channels]
        moments = picture if self._quantise is None else self._quantise.with_bias(picture)
        mean, log_variance = moments.permute(0, 3, 1, 2).float().chunk(2, dim=1)
        # Limits of diffusers' DiagonalGaussianDistribution.
        return mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w), unscaled, to pixels, float32 (B, 3, 8h, 8w), nominally in [-1, 1]."""
        decoder = self._decoder
        latents = latents.to(self.dtype)
        if self._restore is not None:
            latents = self._restore.with_bias(latents.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        picture = decoder.middle(decoder.enter(latents))
        for stage in decoder.stages:
            picture = stage.resnets_of(picture)
            if stage.resize is not None:
                picture = stage.resize.with_bias(enlarge(picture, (2 * picture.shape[1], 2 * picture.shape[2])))
        return decoder.leave(picture)[..., :3].permute(0, 3, 1, 2).float()


@dataclass(frozen=True)
class _Stage:
    """Resnets of one size, and the convolution that leads to the next size."""

    resnets: list[Resnet]
    resize: Convolution | None

    def resnets_of(self, picture: Tensor) -> Tensor:
        for resnet in self.resnets:
            picture = resnet(picture, resnet.offset)
        return picture


class _Way:
    """The parts that encoder and decoder share."""

    def __init__(self, module: Any, attention: Attention, blocks: Any) -> None:
        conv_in, conv_out = module.conv_in, module.conv_out
        self.first = Convolution.of(conv_in).padded(round_up(conv_in.in_channels), conv_in.out_channels)
        self.stages = [_Stage([Resnet(resnet) for resnet in block.resnets], _resize(block)) for block in blocks]
        self._middle = Resnet(module.mid_block.resnets[0]), Resnet(module.mid_block.resnets[1])
        middle = module.mid_block.attentions[0]
        self.attention = None if middle is None else _Attention(middle, attention)
        self._norm = Norm.of(module.conv_norm_out)
        self._last = Convolution.of(conv_out).padded(conv_out.in_channels, round_up(conv_out.out_channels))

    def enter(self, planes: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, H, W, wider)."""
        picture = planes.permute(0, 2, 3, 1)
        return self.first.with_bias(functional.pad(picture, (0, self.first.weight.shape[1] - picture.shape[-1])))

    def middle(self, picture: Tensor) -> Tensor:
        first, second = self._middle
        picture = first(picture, first.offset)
        if self.attention is not None:
            picture = self.attention(picture)
        return second(picture, second.offset)

    def leave(self, picture: Tensor) -> Tensor:
        return self._last.with_bias(self._norm(picture))


class _Attention:
    """One head over all pixels (diffusers' `Attention` with a residual connection)."""

    def __init__(self, module: Any, attention: Attention) -> None:
        self._attention = attention
        self._norm = Norm.of(module.group_norm)
        parts = module.to_q, module.to_k, module.to_v
        self._project = torch.cat([part.weight for part in parts]).detach(), torch.cat([p.bias for p in parts]).detach()
        self._mix = module.to_out[0].weight.detach(), module.to_out[0].bias.detach()
        self.channels = self._mix[0].shape[0]

    def __call__(self, picture: Tensor) -> Tensor:
        tokens = self._norm(picture, silu=False).flatten(1, 2)
        query, keys, values = functional.linear(tokens, *self._project)[:, None].chunk(3, dim=-1)
        mixed = self._attention(query, keys, values)[:, 0]
        return picture + functional.linear(mixed, *self._mix).view(picture.shape)


def _resize(block: Any) -> Convolution | None:
    """The convolution of a block's down- or up-sampler."""
    sampler = getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None)
    return Convolution.of(sampler[0].conv) if sampler else None
