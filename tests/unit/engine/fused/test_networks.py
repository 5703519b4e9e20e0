"""The quick form of the networks: equal to recorded vectors and to the plain form, and never mixing looks."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from PIL import Image
from support.tiny_networks import load_engine, make_unet, make_vae, read_meta, read_vectors, write_bundle
from torch import Tensor
from unit.engine.test_plain_denoiser import SCHEDULER, RecordedNoise, category_of, check_picture
from unit.engine.test_tryon import BAG, JEANS, OPTIONS, OUTFIT, PERSON, SHIRT, pixels

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.domain.look import Category, MaskMode, Preset, SamplingOptions
from fastfit_watch.engine.autoencoding import decode, encode
from fastfit_watch.engine.cache import ContentCache, HitList
from fastfit_watch.engine.fused import blocks, kernels
from fastfit_watch.engine.fused.attention_backends import Attention
from fastfit_watch.engine.fused.attention_buffers import AttentionBuffers
from fastfit_watch.engine.fused.networks import FusedNetworks
from fastfit_watch.engine.fused.unet import FusedUNet
from fastfit_watch.engine.fused.vae import FusedVAE
from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.noise import SeededNoise
from fastfit_watch.engine.noise_schedule import NoiseSchedule
from fastfit_watch.engine.pixels import composite, cover_person, make_condition, mask_to_tensor, to_pixels, to_tensor
from fastfit_watch.engine.preprocessing.picture import Picture
from fastfit_watch.engine.references import Reference, read_reference_rows
from fastfit_watch.engine.tryon import TryOnEngine

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TryOnEngine:
    return load_engine(write_bundle(tmp_path_factory.mktemp("bundle")))


def no_hits() -> HitList:
    return HitList(ContentCache("cpu", 0, 2**20))


def check(actual: Tensor, expected: Any, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=tolerance)


# Against recorded vectors


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_vectors("unet_tiny_io.npz")


@pytest.fixture(scope="module")
def unet(golden: dict[str, Any]) -> FusedUNet:
    return FusedUNet(make_unet(json.loads(str(golden["config_json"])), int(golden["fill_seed"])), Attention())


@pytest.fixture(scope="module")
def references(unet: FusedUNet, golden: dict[str, Any]) -> ReferenceCache:
    inputs = [
        [torch.from_numpy(golden[f"ref{index}_{part}"]) for part in ("latent", "label")] for index in (0, 1, 3, 4)
    ]
    return ReferenceCache.join([unet.read_reference(*each) for each in inputs])


@pytest.mark.parametrize("timestep", [981, 541, 21])
@pytest.mark.parametrize("case", [0, 1])
def test_denoise(unet: FusedUNet, golden: dict[str, Any], references: ReferenceCache, case: int, timestep: int) -> None:
    noise = unet.denoise(torch.from_numpy(golden[f"x{case}_t{timestep}"]), timestep, references)
    check(noise, golden[f"y{case}_t{timestep}"])


def test_denoise_without_references(unet: FusedUNet, golden: dict[str, Any]) -> None:
    check(unet.denoise(torch.from_numpy(golden["x0_t981"]), 981, None), golden["y_norefs"])


def test_reference_keys_and_values(references: ReferenceCache, golden: dict[str, Any]) -> None:
    names = {name.split("/", 1)[1] for name in golden if name.startswith("kv_chk/")}
    assert {f"{layer}/{kind}" for layer in references.layers for kind in "KV"} == names
    for name in names:
        layer, kind = name.split("/")
        tensor = references.layers[layer].keys if kind == "K" else references.layers[layer].values
        check(tensor[0, 0, 0], golden[f"kv_head/{name}"])
        if f"kv_full/{name}" in golden:
            # Another order of sums: on the deepest layer a few numbers of size 1 differ by 1e-4, and nothing after it.
            check(tensor, golden[f"kv_full/{name}"], 2e-4)


@pytest.mark.parametrize("name", ["mr", "nopose", "cfg1"])
def test_recorded_run(name: str) -> None:
    """A whole recorded pipeline, guidance and skipped slots included, through the quick networks and their loop."""
    vectors = read_vectors(f"pipeline_{name}.npz")
    meta, person, mask = read_meta(vectors), vectors["in_person"], vectors["in_mask"]
    unet = make_unet(meta["unet_config"], meta["unet_fill_seed"])
    fast = FusedNetworks(unet, make_vae(meta["vae_config"], meta["vae_fill_seed"]))
    noise, guidance = RecordedNoise.of(vectors), meta["guidance_scale"]
    pose = vectors.get("in_pose", np.zeros_like(person))
    with torch.inference_mode():
        masked = encode(fast.vae, cover_person(person, mask, pose), noise.posterior)
        encoded = [
            encode(fast.vae, to_tensor(vectors[f"in_ref{i}"]), noise.posterior) for i in range(len(meta["labels"]))
        ]
        worn = [
            Reference(category_of(label), latents)
            for label, latents, kept in zip(meta["labels"], encoded, meta["ref_masks"], strict=True)
            if kept
        ]
        rows = read_reference_rows(fast.unet, worn, guidance, no_hits())
        schedule = NoiseSchedule.of(DDPMScheduler.from_config(meta["scheduler"]), meta["steps"])
        condition = make_condition(mask_to_tensor(mask), masked)
        latents = fast.denoise(schedule, condition, [rows], guidance, [noise])
        picture = composite(to_pixels(decode(fast.vae, latents)), person, mask)
    assert noise.taken == len(noise.draws)
    check(latents, vectors[f"step{meta['steps'] - 1}_latents_out"], 2e-4)
    check_picture(picture, vectors["out_image"])


def test_vae_is_that_of_diffusers() -> None:
    meta = read_meta(read_vectors("pipeline_mr.npz"))
    vae = make_vae(meta["vae_config"], meta["vae_fill_seed"])
    random = torch.Generator().manual_seed(0)
    pixels, latents = torch.rand(1, 3, 40, 24, generator=random) * 2 - 1, torch.randn(1, 4, 5, 3, generator=random)
    fused = FusedVAE(vae, Attention())
    mean, deviation = fused.encode(pixels)
    posterior = vae.encode(pixels).latent_dist
    check(mean, posterior.mean.numpy())
    check(deviation, posterior.std.numpy())
    check(fused.decode(latents), vae.decode(latents).sample.numpy())


# Solvers


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and NumPy 2
@pytest.mark.parametrize("preset", [Preset.FAST, Preset.DRAFT])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_approximate_presets_are_the_published_solver(preset: Preset, steps: int) -> None:
    schedule = NoiseSchedule.of(DDPMScheduler(steps_offset=1, **SCHEDULER), steps, preset)
    solver = DPMSolverMultistepScheduler(
        beta_start=SCHEDULER["beta_start"],
        beta_end=SCHEDULER["beta_end"],
        beta_schedule=SCHEDULER["beta_schedule"],
        algorithm_type="sde-dpmsolver++",
        final_sigmas_type="zero",
        euler_at_final=True,
    )
    solver.set_timesteps(steps)
    # diffusers spaces its timesteps otherwise; the formula is what is compared.
    solver.timesteps = torch.tensor(schedule.timesteps)
    noise_to_signal = [((1 - signal) / signal) ** 0.5 for signal in schedule.signal]
    solver.sigmas = torch.tensor([*noise_to_signal, 0.0], dtype=torch.float64)
    ours = theirs = torch.randn(1, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    picture = torch.zeros_like(ours)
    for index, timestep in enumerate(solver.timesteps):
        predicted, fresh = torch.randn(2, 1, 4, 3, 2, dtype=torch.float64)
        theirs = solver.step(predicted, timestep, theirs, variance_noise=fresh).prev_sample
        ours, picture = schedule.step(index, ours, predicted, picture, fresh)
    check(ours, theirs.numpy(), 1e-4)


def test_guidance_covers_the_first_part_only() -> None:
    scheduler = DDPMScheduler(steps_offset=1, **SCHEDULER)
    assert NoiseSchedule.of(scheduler, 6, Preset.DRAFT).guided == (True, True, True, False, False, False)
    assert all(NoiseSchedule.of(scheduler, 6).guided)


@pytest.mark.parametrize("preset", list(Preset))
def test_quick_and_plain_loop_agree(engine: TryOnEngine, preset: Preset) -> None:
    options = replace(OPTIONS, preset=preset, steps=5)
    quick = pixels(engine.try_on(PERSON, OUTFIT, options))
    plain = pixels(replace(engine, fast=None).try_on(PERSON, OUTFIT, options))
    assert int(np.abs(quick.astype(int) - plain).max()) <= 1
    assert (quick != pixels(engine.try_on(PERSON, OUTFIT, replace(options, steps=4)))).any()


def test_noise_is_drawn_step_by_step(engine: TryOnEngine) -> None:
    """All at once, the device would wait for it; so a look that ends early has drawn for its own steps alone."""
    drawn: list[int] = []

    class Counted(SeededNoise):
        def step(self, index: int, shape: tuple[int, ...]) -> Tensor:
            drawn.append(index)
            return super().step(index, shape)

    def stop(step: int, steps: int) -> None:
        if step == 2:
            raise EngineError("enough")

    fast, look = engine.fast, engine.prepare(PERSON, OUTFIT, OPTIONS)
    assert fast is not None
    schedule = NoiseSchedule.of(engine.scheduler, 6)
    rows = read_reference_rows(fast.unet, look.references, 2.5, no_hits())
    with torch.inference_mode(), pytest.raises(EngineError, match="enough"):
        fast.denoise(schedule, look.condition, [rows], 2.5, [Counted(1)], stop)
    assert drawn == [0, 1]


# Several looks together


def test_a_batch_is_its_looks_alone(engine: TryOnEngine) -> None:
    """Equal shapes, different people, garments and seeds: rounding apart, nobody sees the neighbour's garments."""
    fast = engine.fast
    assert fast is not None
    looks = [
        engine.prepare(PERSON, {Category.UPPER: SHIRT, Category.BAG: BAG}, OPTIONS),
        engine.prepare(JEANS, {Category.UPPER: JEANS, Category.BAG: SHIRT}, replace(OPTIONS, seed=5)),
    ]
    schedule = NoiseSchedule.of(engine.scheduler, 3)

    def run(*chosen: int) -> Tensor:
        rows = [read_reference_rows(fast.unet, looks[index].references, 2.5, no_hits()) for index in chosen]
        condition = torch.cat([looks[index].condition for index in chosen])
        noise = [SeededNoise(looks[index].seed) for index in chosen]
        return fast.denoise(schedule, condition, rows, 2.5, noise)

    with torch.inference_mode():
        together, alone = run(0, 1), torch.cat([run(0), run(1)])
    assert float((together - alone).abs().max()) < 1e-4
    assert float((alone[0] - alone[1]).abs().max()) > 0.1


def test_looks_of_different_shapes_are_not_batched(engine: TryOnEngine) -> None:
    fast = engine.fast
    assert fast is not None
    looks = [engine.prepare(PERSON, worn, OPTIONS) for worn in (OUTFIT, {Category.UPPER: SHIRT})]
    with torch.inference_mode(), pytest.raises(ValueError, match="garments of the same sizes"):
        fast.denoise(
            NoiseSchedule.of(engine.scheduler, 1),
            torch.cat([look.condition for look in looks]),
            [read_reference_rows(fast.unet, look.references, 2.5, no_hits()) for look in looks],
            2.5,
            [SeededNoise(1), SeededNoise(2)],
        )


def test_buffers_must_be_filled_exactly(unet: FusedUNet, references: ReferenceCache) -> None:
    buffers = AttentionBuffers.empty(
        unet.layer_shapes((16, 16)), 2, references.tokens_by_layer, unet.device, unet.dtype
    )
    buffers.fill(1, [references])
    with pytest.raises(ValueError, match="do not fit in 588"):
        buffers.fill(1, [references, references])


# Work done once


def picture_of(image: Image.Image, digest: str, opened: list[str] | None = None) -> Picture:
    def open_it() -> Image.Image:
        if opened is not None:
            opened.append(digest)
        return image

    return Picture(open_it, digest)


def test_what_is_known_is_neither_opened_nor_made_again(tmp_path: Path) -> None:
    engine, opened = load_engine(write_bundle(tmp_path)), list[str]()
    anna = picture_of(PERSON, "anna", opened)
    worn = {Category.UPPER: picture_of(SHIRT, "shirt", opened), Category.BAG: picture_of(BAG, "bag", opened)}
    first = engine.try_on(anna, worn, OPTIONS)
    assert dict(first.cache) == {
        **{f"{name}.miss": 1 for name in ("person", "mask", "encoding")},
        "garment.miss": 2,
        "keys.miss": 2,
    }
    again = engine.try_on(anna, worn, OPTIONS)
    np.testing.assert_array_equal(pixels(first), pixels(again))
    np.testing.assert_array_equal(pixels(first), pixels(engine.try_on(PERSON, OUTFIT, OPTIONS)))
    assert sorted(opened) == ["anna", "bag", "shirt"]
    assert dict(again.cache) == {name.replace("miss", "hit"): count for name, count in first.cache.items()}
    ben = engine.try_on(picture_of(JEANS, "ben"), worn, OPTIONS)
    assert {name: ben.cache[name] for name in ("person.miss", "garment.hit", "keys.hit")} == {
        "person.miss": 1,
        "garment.hit": 2,
        "keys.hit": 2,
    }


def test_garments_are_fitted_beside_the_persons_parsing(tmp_path: Path) -> None:
    engine, fitted = load_engine(write_bundle(tmp_path)), threading.Event()

    def open_shirt() -> Image.Image:
        fitted.set()
        return SHIRT

    def open_person() -> Image.Image:
        assert fitted.wait(20), "the shirt was not opened before the person was parsed"
        return PERSON

    made = engine.try_on(Picture(open_person), {Category.UPPER: Picture(open_shirt)}, OPTIONS)
    np.testing.assert_array_equal(pixels(made), pixels(engine.try_on(PERSON, {Category.UPPER: SHIRT}, OPTIONS)))


def test_another_slot_mask_or_framing_is_another_thing(tmp_path: Path) -> None:
    engine = load_engine(write_bundle(tmp_path))
    anna, shirt = picture_of(PERSON, "anna"), picture_of(SHIRT, "shirt")
    engine.try_on(anna, {Category.UPPER: shirt}, OPTIONS)
    lower = engine.try_on(anna, {Category.LOWER: shirt}, replace(OPTIONS, mask=MaskMode.WORN))
    assert {name for name, count in lower.cache.items() if name.endswith("hit")} == {"person.hit"}
    np.testing.assert_array_equal(
        pixels(lower), pixels(engine.try_on(PERSON, {Category.LOWER: SHIRT}, replace(OPTIONS, mask=MaskMode.WORN)))
    )


def test_a_failed_look_leaves_nothing_half_built(tmp_path: Path) -> None:
    engine = load_engine(write_bundle(tmp_path))

    def broken() -> Image.Image:
        raise EngineError("It cannot be read.")

    worn: dict[Category, Image.Image | Picture] = {
        Category.UPPER: picture_of(SHIRT, "shirt"),
        Category.BAG: Picture(broken, "bag"),
    }
    with pytest.raises(EngineError, match="cannot be read"):
        engine.try_on(picture_of(PERSON, "anna"), worn, OPTIONS)
    worn[Category.BAG] = picture_of(BAG, "bag")
    result = engine.try_on(picture_of(PERSON, "anna"), worn, OPTIONS)
    assert {name for name in result.cache if name.endswith("hit")} == {
        *("person.hit", "mask.hit", "encoding.hit", "garment.hit")
    }
    assert (result.cache["garment.hit"], result.cache["garment.miss"]) == (1, 1)
    np.testing.assert_array_equal(pixels(result), pixels(engine.try_on(PERSON, OUTFIT, OPTIONS)))


def test_the_cache_is_bounded_and_forgets_the_oldest() -> None:
    cache = ContentCache("cpu", 0, 3 * 400)
    for name in "abc":
        cache.put((name,), torch.zeros(100))
    assert cache.get(("a",)) is not None
    cache.put(("d",), torch.zeros(100))
    assert [cache.get((name,)) is not None for name in "abcd"] == [True, False, True, True]
    assert cache.use.host_bytes == 1200
    assert (cache.use.hits, cache.use.misses) == (4, 1)
    cache.put(("large",), torch.zeros(1000))
    assert cache.use.host_bytes == 0
    assert cache.get(("large",)) is None


def test_a_value_replaced_is_counted_once() -> None:
    cache = ContentCache("cpu", 0, 10_000)
    for _ in range(3):
        cache.put(("a",), (torch.zeros(100), np.zeros(50, np.uint8), Image.new("RGB", (10, 10))))
    assert cache.use.host_bytes == 400 + 50 + 300
    cache.clear()
    assert cache.use.host_bytes == 0


def test_many_threads_share_a_cache() -> None:
    cache, faults = ContentCache("cpu", 0, 8 * 400), list[str]()

    def work(seed: int) -> None:
        for turn in range(300):
            number = (seed * 7 + turn * turn) % 20
            value, _ = cache.fetch((number,), partial(torch.full, (100,), float(number)))
            if float(value[0]) != number:
                faults.append(f"{value[0]} under {number}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert cache.use.host_bytes <= 8 * 400


def test_no_triton_on_the_cpu() -> None:
    assert not kernels.has_triton(torch.device("cpu"))
    assert blocks.round_up(9) == 16


def test_the_default_preset_is_the_published_arithmetic() -> None:
    assert SamplingOptions().preset is Preset.EXACT
    assert SamplingOptions().steps == Preset.EXACT.steps
