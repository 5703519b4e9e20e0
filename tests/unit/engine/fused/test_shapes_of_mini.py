"""The quick form of networks shaped as `mini`'s are: levels without attention, and a VAE without any."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from fastfit_watch.engine.fused.attention_backends import Attention
from fastfit_watch.engine.fused.attention_buffers import AttentionBuffers
from fastfit_watch.engine.fused.networks import FusedNetworks
from fastfit_watch.engine.fused.unet import FusedUNet
from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.mini.networks import UNET_CONFIG, VAE_CONFIG

SMALL_UNET: dict[str, Any] = UNET_CONFIG | {"block_out_channels": [16, 16, 32, 32]}
SMALL_VAE: dict[str, Any] = VAE_CONFIG | {"block_out_channels": [8, 16, 16]}
ROWS = 2  # guidance's two halves, which begin as one


@pytest.fixture
def unet() -> FastFitUNet:
    torch.manual_seed(1)
    unet: FastFitUNet = FastFitUNet.from_config_dict(SMALL_UNET).eval().requires_grad_(False)
    return unet


def references(unet: FastFitUNet) -> ReferenceCache:
    return unet.read_reference(torch.randn(ROWS, 4, 24, 16), torch.tensor([0, 2]))


def test_the_quick_unet_equals_the_plain_one_where_its_first_levels_do_not_attend(unet: FastFitUNet) -> None:
    quick, seen = FusedUNet(unet, Attention()), references(unet)
    sample = torch.randn(1, 9, 24, 16)
    both = unet.denoise(torch.cat([sample, sample]), 500, seen)
    torch.testing.assert_close(quick.denoise(torch.cat([sample, sample]), 500, seen), both, rtol=0, atol=5e-5)


def test_a_sample_shared_by_both_halves_gives_what_two_equal_ones_give(unet: FastFitUNet) -> None:
    quick, seen = FusedUNet(unet, Attention()), references(unet)
    sample = torch.randn(1, 9, 24, 16)
    buffers = buffers_of(quick, seen, (24, 16))
    picture = torch.nn.functional.pad(sample.permute(0, 2, 3, 1), (0, quick.input_channels - 9))
    shared = quick.predict(picture, quick.time_offsets([500]), buffers).permute(0, 3, 1, 2)
    both = unet.denoise(torch.cat([sample, sample]), 500, seen)
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(shared, both, rtol=0, atol=5e-5)


def buffers_of(quick: FusedUNet, seen: ReferenceCache, size: tuple[int, int]) -> AttentionBuffers:
    shapes = quick.layer_shapes(size)
    buffers = AttentionBuffers.empty(shapes, ROWS, seen.tokens_by_layer, quick.device, quick.dtype)
    for row in range(ROWS):
        buffers.fill(row, [seen.half(row)])
    return buffers


def test_a_reference_pass_ends_with_its_last_keys_and_values(unet: FastFitUNet) -> None:
    calls: list[str] = []
    for name in ("up_blocks.1", "up_blocks.2", "conv_out"):
        unet.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    plain = references(unet)
    assert calls == ["up_blocks.1"]
    assert set(plain.layers) == set(FusedUNet(unet, Attention()).layers)


def test_a_vae_without_attention_encodes_and_decodes_as_the_plain_one() -> None:
    torch.manual_seed(2)
    vae = AutoencoderKL(**SMALL_VAE).eval().requires_grad_(False)
    torch.manual_seed(1)
    networks = FusedNetworks(FastFitUNet.from_config_dict(SMALL_UNET).eval().requires_grad_(False), vae)
    networks.warm_up((96, 72), None)
    assert networks.vae.widest_head is None
    pixels = torch.rand(1, 3, 96, 72) * 2 - 1
    mean, deviation = networks.vae.encode(pixels)
    plain = vae.encode(pixels).latent_dist
    torch.testing.assert_close(mean, plain.mean, rtol=0, atol=5e-5)
    torch.testing.assert_close(deviation, plain.std, rtol=0, atol=5e-5)
    torch.testing.assert_close(networks.vae.decode(mean), vae.decode(mean).sample, rtol=0, atol=5e-5)
