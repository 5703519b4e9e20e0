"""Tokens of a picture of zeros that are equal: which they are, and that attending to one of each changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
import torch
from diffusers import DDPMScheduler
from support.tiny_networks import make_unet, make_vae, read_meta, read_vectors
from torch import Tensor
from torch.nn import functional
from unit.engine.test_plain_denoiser import SCHEDULER

from fastfit_watch.domain.look import Category, Preset
from fastfit_watch.engine.cache import ContentCache, HitList
from fastfit_watch.engine.fused.attention_backends import Attention
from fastfit_watch.engine.fused.attention_buffers import LayerShape, Section
from fastfit_watch.engine.fused.denoiser import DenoiseBatch, Denoiser
from fastfit_watch.engine.fused.networks import FusedNetworks, Pair
from fastfit_watch.engine.fused.token_merging import Axis, TokenMerge
from fastfit_watch.engine.fused.unet import FusedUNet
from fastfit_watch.engine.networks.reference_attention import KeysValues, ReferenceCache
from fastfit_watch.engine.noise import SeededNoise
from fastfit_watch.engine.noise_schedule import NoiseSchedule
from fastfit_watch.engine.references import Reference, read_reference_rows

SIZE = (40, 34)
WORN = (Category.UPPER, Category.BAG)


@pytest.fixture(scope="module")
def fast() -> FusedNetworks:
    vectors = read_vectors("unet_tiny_io.npz")
    unet = make_unet(json.loads(str(vectors["config_json"])), int(vectors["fill_seed"]))
    meta = read_meta(read_vectors("pipeline_mr.npz"))
    return FusedNetworks(unet, make_vae(meta["vae_config"], meta["vae_fill_seed"]))


@pytest.fixture(autouse=True)
def no_gradients() -> object:
    with torch.inference_mode():
        yield


def spread(odd: Sequence[bool], stride: int) -> list[bool]:
    """Which tokens a convolution of three makes odd: those that see an odd one, or the padding."""
    seen = [True, *odd, True]
    return [any(seen[place : place + 3]) for place in range(0, len(odd), stride)]


@pytest.mark.parametrize("length", range(1, 48))
@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2), (1, 1, 1, 2, 1, 1), (2, 2, 1), (1, 1, 2, 1, 1, 2, 1, 1)])
def test_what_convolutions_make_odd(length: int, strides: tuple[int, ...]) -> None:
    axis, odd = Axis(length), [False] * length
    for stride in strides:
        axis = axis.halved() if stride == 2 else axis.convolved(1)
        odd = spread(odd, stride)
    assert axis.length == len(odd)
    if False in odd:
        assert (axis.begin, axis.end) == (odd.index(False), odd[::-1].index(False))
    else:
        assert axis.begin + axis.end >= axis.length
    paths, counts = zip(*axis.distinct, strict=True)
    assert sum(counts) == axis.length and len(set(paths)) == len(paths)
    assert all(not odd[place] for place, count in axis.distinct if count > 1)


def test_merged_tokens_are_equal_and_stand_for_all(fast: FusedNetworks) -> None:
    latents, label = torch.zeros(1, 4, *SIZE), torch.tensor([Category.BAG.label])
    whole, merged = fast.unet.read_reference(latents, label), fast.unet.read_nothing(SIZE, Category.BAG.label)
    kinds = fast.unet.alike(SIZE)
    worth = {name for name, alike in kinds.items() if alike.is_worth_it}
    assert worth == {f"down_blocks.0.attentions.{index}.transformer_blocks.0.attn1" for index in (0, 1)}
    for name, layer in merged.layers.items():
        full = whole.layers[name]
        if name not in worth:
            assert layer.copies is None and layer.keys.shape == full.keys.shape
            continue
        assert layer.copies is not None and layer.keys.shape[2] == kinds[name].tokens == len(layer.copies)
        assert int(layer.copies.sum()) == SIZE[0] * SIZE[1]
        for part, all_of_them in ((layer.keys, full.keys), (layer.values, full.values)):
            distances = torch.cdist(all_of_them[0], part[0], compute_mode="donot_use_mm_for_euclid_dist")
            assert float(distances.amin(-1).max()) < 1e-4, "every token has its like among those that remain"
    few = next(iter(worth))
    columns = whole.layers[few].keys.view(*whole.layers[few].keys.shape[:2], *SIZE, -1)
    assert float((columns[:, :, 0] - columns[:, :, SIZE[0] // 2]).abs().max()) > 0.01, "the sides do differ"


def test_one_of_many_equal_keys_with_their_number_is_all_of_them() -> None:
    random = torch.Generator().manual_seed(0)
    keys, values, own = (torch.randn(1, 2, count, 16, generator=random) for count in (5, 5, 7))
    copies = torch.tensor([1, 2, 300, 4000, 12288])
    section = Section.empty(LayerShape((7, 1), 2, 32), 1, 5, torch.device("cpu"), torch.float32, merged=True)
    section.fill(0, "layer", [KeysValues(keys, values, copies)])
    mixed = section.attend(own, own, own, Attention())
    keys, values = (torch.cat([part.repeat_interleave(copies, 2), own], 2) for part in (keys, values))
    expected = functional.scaled_dot_product_attention(own, keys, values).transpose(1, 2).flatten(2)
    assert float((mixed - expected).abs().max()) < 1e-5


def test_half_precision_keeps_the_number_of_copies() -> None:
    copies = torch.arange(1, 40_000, 7)
    shape = LayerShape((1, 1), 1, 40)
    section = Section.empty(shape, 1, len(copies), torch.device("cpu"), torch.bfloat16, merged=True)
    nothing = torch.zeros(1, 1, len(copies), 40, dtype=torch.bfloat16)
    section.fill(0, "layer", [KeysValues(nothing, nothing, copies)])
    scores = section.keys[0, 0, :-1, 40:].float().sum(-1) / 40**0.5
    assert float((scores.exp() / copies - 1).abs().max()) < 2e-3


def worn_by(unet: FusedUNet, seed: int) -> list[Pair]:
    random = torch.Generator().manual_seed(seed)
    sizes = {Category.UPPER: SIZE, Category.BAG: (20, 17)}
    latents = [Reference(slot, torch.randn(1, 4, *sizes[slot], generator=random)) for slot in WORN]
    return read_reference_rows(unet, latents, 2.5, HitList(ContentCache("cpu", 0, 2**20)))


def unmerged(unet: FusedUNet, worn: Sequence[Pair]) -> list[Pair]:
    """The same with the unconditional rows as the network reads them."""
    wholes: list[ReferenceCache] = []
    for slot, (_, conditional) in zip(WORN, worn, strict=True):
        size = SIZE if conditional.tokens == SIZE[0] * SIZE[1] else (20, 17)
        wholes.append(unet.read_reference(torch.zeros(1, 4, *size), torch.tensor([slot.label])))
    return [(whole, conditional) for whole, (_, conditional) in zip(wholes, worn, strict=True)]


@pytest.fixture
def run(fast: FusedNetworks) -> Callable[[Preset, Sequence[Sequence[Pair]], Sequence[int]], Tensor]:
    def denoise(preset: Preset, worn: Sequence[Sequence[Pair]], seeds: Sequence[int]) -> Tensor:
        schedule = NoiseSchedule.of(DDPMScheduler(steps_offset=1, **SCHEDULER), 4, preset)
        pictures = [torch.randn(1, 5, *SIZE, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        job = DenoiseBatch(torch.cat(pictures), worn, [SeededNoise(seed) for seed in seeds], 2.5)
        return Denoiser(fast.unet).run(schedule, job)

    return denoise


@pytest.mark.parametrize("preset", [Preset.EXACT, Preset.DRAFT])
def test_a_run_with_merged_tokens_is_the_same_run(
    fast: FusedNetworks, run: Callable[[Preset, Sequence[Sequence[Pair]], Sequence[int]], Tensor], preset: Preset
) -> None:
    worn = worn_by(fast.unet, 3)
    merged, whole = run(preset, [worn], [5]), run(preset, [unmerged(fast.unet, worn)], [5])
    assert worn[0][0].tokens_by_layer != worn[0][1].tokens_by_layer, "or nothing is compared"
    assert float((merged - whole).abs().max()) < 1e-4
    assert float((merged - run(preset, [worn_by(fast.unet, 4)], [5])).abs().max()) > 0.01


def test_a_batch_with_merged_tokens_is_its_looks_alone(
    fast: FusedNetworks, run: Callable[[Preset, Sequence[Sequence[Pair]], Sequence[int]], Tensor]
) -> None:
    worn = [worn_by(fast.unet, seed) for seed in (3, 4)]
    together = run(Preset.EXACT, worn, [5, 6])
    alone = torch.cat([run(Preset.EXACT, [each], [seed]) for each, seed in zip(worn, (5, 6), strict=True)])
    assert float((together - alone).abs().max()) < 1e-4


def test_merging_that_saves_little_is_left() -> None:
    assert not TokenMerge(Axis(16, 5, 5), Axis(16, 5, 5)).is_worth_it
    assert TokenMerge(Axis(96, 5, 5), Axis(128, 5, 5)).tokens == 121
