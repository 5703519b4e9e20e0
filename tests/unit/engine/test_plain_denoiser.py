"""Sampling, replayed against recorded pipeline runs step by step, and its own promises about noise and pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from numpy.typing import NDArray
from PIL import Image
from support.tiny_networks import Vectors, make_unet, make_vae, read_meta, read_vectors
from torch import Tensor, nn

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.domain.look import Category
from fastfit_watch.engine.autoencoding import PlainVAE, decode, encode
from fastfit_watch.engine.noise import SeededNoise, draw_posterior_noise, posterior_seed
from fastfit_watch.engine.noise_schedule import NoiseSchedule
from fastfit_watch.engine.pixels import (
    Pixels,
    composite,
    cover_person,
    make_condition,
    mask_to_tensor,
    to_pixels,
    to_tensor,
)
from fastfit_watch.engine.plain_denoiser import DenoiseInput, denoise
from fastfit_watch.engine.preprocessing.geometry import adjust, paste_back, stretch
from fastfit_watch.engine.references import Reference, read_references

LABELS = {"overall": Category.DRESS} | {category.value: category for category in Category}
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


@dataclass
class RecordedNoise:
    """Gives back the draws of a recorded run, in the order they were consumed; `steps` of them are the last ones."""

    draws: list[Tensor]
    steps: int
    taken: int = 0

    @classmethod
    def of(cls, vectors: Vectors) -> RecordedNoise:
        draws = [torch.from_numpy(vectors[name]) for name in sorted(vectors) if name.startswith("draw")]
        return cls(draws, read_meta(vectors)["steps"])

    def posterior(self, shape: tuple[int, ...]) -> Tensor:
        drawn = self.draws[self.taken]
        self.taken += 1
        assert drawn.shape == shape
        return drawn

    def initial(self, shape: tuple[int, ...]) -> Tensor:
        return self.posterior(shape)

    def step(self, index: int, shape: tuple[int, ...]) -> Tensor:
        assert self.taken == len(self.draws) - self.steps + index
        return self.posterior(shape)


@dataclass(frozen=True)
class WatchedSchedule(NoiseSchedule):
    """The real schedule, which also remembers what went through each step."""

    predicted: list[Tensor] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)

    def step(
        self, index: int, latents: Tensor, predicted_noise: Tensor, previous: Tensor, fresh_noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        self.predicted.append(predicted_noise)
        self.latents.append(super().step(index, latents, predicted_noise, previous, fresh_noise)[0])
        return super().step(index, latents, predicted_noise, previous, fresh_noise)


@dataclass(frozen=True)
class Replay:
    """What one replayed run produced on its way."""

    picture: Pixels
    schedule: WatchedSchedule
    unet_inputs: list[Tensor]
    noise: RecordedNoise


def replay(vectors: Vectors, person: Pixels, mask: Pixels, pose: Pixels) -> Replay:
    """Run the recorded inputs and draws through the engine's own functions."""
    meta = read_meta(vectors)
    unet = make_unet(meta["unet_config"], meta["unet_fill_seed"])
    vae = PlainVAE(make_vae(meta["vae_config"], meta["vae_fill_seed"]))
    noise = RecordedNoise.of(vectors)
    inputs: list[Tensor] = []

    def remember(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.append(arguments[0])

    unet.register_forward_pre_hook(remember)
    schedule = NoiseSchedule.of(DDPMScheduler.from_config(meta["scheduler"]), meta["steps"])
    watched = WatchedSchedule(**vars(schedule))
    with torch.inference_mode():
        masked_latents = encode(vae, cover_person(person, mask, pose), noise.posterior)
        # The recorded runs also encode absent slots, which consumes a draw; this engine never does.
        garments = [encode(vae, to_tensor(vectors[f"in_ref{i}"]), noise.posterior) for i in range(len(meta["labels"]))]
        present = [
            Reference(category_of(label), latents)
            for label, latents, kept in zip(meta["labels"], garments, meta["ref_masks"], strict=True)
            if kept
        ]
        references = read_references(unet, present, meta["guidance_scale"])
        condition = make_condition(mask_to_tensor(mask), masked_latents)
        latents = denoise(unet, watched, DenoiseInput(condition, references, meta["guidance_scale"], noise))
        picture = composite(to_pixels(decode(vae, latents)), person, mask)
    return Replay(picture, watched, inputs, noise)


def category_of(label: str | int) -> Category:
    """The slot of a recorded label: a name or a row of the class table."""
    return LABELS[label] if isinstance(label, str) else list(Category)[label]


def check(actual: Tensor, expected: NDArray[Any], tolerance: float = 2e-4) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=tolerance)


def check_picture(actual: Pixels, expected: Pixels) -> None:
    assert actual.shape == expected.shape
    assert int(np.abs(actual.astype(int) - expected).max()) <= 1


@pytest.mark.parametrize("name", ["mr", "nopose", "cfg1"])
def test_recorded_run(name: str) -> None:
    golden = read_vectors(f"pipeline_{name}.npz")
    person, mask = golden["in_person"], golden["in_mask"]
    run = replay(golden, person, mask, golden.get("in_pose", np.zeros_like(person)))

    assert run.noise.taken == len(run.noise.draws)
    recorded_references = [golden[key] for key in sorted(golden) if key.startswith("ref_unet_in")]
    for seen, expected in zip(run.unet_inputs, recorded_references, strict=False):
        check(seen, expected)
    check(run.unet_inputs[len(recorded_references)], golden["unet_in_step0"])
    steps = read_meta(golden)["steps"]
    assert run.schedule.timesteps == tuple(int(golden[f"step{i}_t"]) for i in range(steps))
    for index in range(steps):
        check(run.schedule.predicted[index], golden[f"step{index}_eps"])
        check(run.schedule.latents[index], golden[f"step{index}_latents_out"])
    check_picture(run.picture, golden["out_image"])
    np.testing.assert_array_equal(run.picture[mask < 128], person[mask < 128])


@pytest.mark.slow
def test_recorded_adjusted_run() -> None:
    """A crop around the mask at 768x1024 and the way back, two steps. Run with `pytest -m slow`."""
    golden = read_vectors("pipeline_adjust.npz")
    adjustment = adjust(Image.fromarray(golden["in_person"]), Image.fromarray(golden["in_mask"]), (1024, 768))
    # The recorded run squeezes the uncropped pose into the crop; the engine crops it, so the replay does it here.
    pose = np.asarray(Image.fromarray(golden["in_pose"]).resize((768, 1024)))
    run = replay(golden, np.asarray(adjustment.crop), np.asarray(adjustment.crop_mask), pose)

    check(run.schedule.latents[1], golden["step1_latents_out"], 1e-3)
    scaled = stretch(Image.fromarray(golden["in_person"]), adjustment.scaled_size)
    result = paste_back(scaled, Image.fromarray(run.picture), adjustment.box)
    assert result.size == tuple(golden["out_size_wh"])
    pixels = np.asarray(result)
    check_picture(pixels[::8, ::8], golden["out_strided8"])
    check_picture(pixels[300:364, 300:364], golden["out_patch"])
    np.testing.assert_allclose(pixels.reshape(-1, 3).mean(0), golden["out_mean_rgb"], rtol=0, atol=0.01)


def test_encoder_and_its_input() -> None:
    golden = read_vectors("pipeline_mr.npz")
    meta = read_meta(golden)
    vae = PlainVAE(make_vae(meta["vae_config"], meta["vae_fill_seed"]))
    covered = cover_person(golden["in_person"], golden["in_mask"], golden["in_pose"])
    check(covered, golden["vae_in0"], 1e-6)
    mean, log_variance = np.split(golden["vae_moments0"], 2, axis=1)
    expected = (mean + np.exp(log_variance / 2)) * 0.18215
    check(encode(vae, covered, torch.ones), expected, 5e-5)


@pytest.mark.parametrize(
    ("steps", "first", "last"),
    [(50, (981, 961), 1), (30, (958, 925), 1), (4, (751, 501), 1)],
)
def test_timesteps(steps: int, first: tuple[int, int], last: int) -> None:
    scheduler = DDPMScheduler(steps_offset=1, **SCHEDULER)
    schedule = NoiseSchedule.of(scheduler, steps)
    assert (schedule.timesteps[:2], schedule.timesteps[-1], len(schedule.timesteps)) == (first, last, steps)
    assert scheduler.num_inference_steps is None


@pytest.mark.parametrize("clip", [False, True])
def test_step_agrees_with_diffusers(clip: bool) -> None:
    scheduler = DDPMScheduler(steps_offset=1, **SCHEDULER | {"clip_sample": clip})
    schedule = NoiseSchedule.of(scheduler, 7)
    scheduler.set_timesteps(7)
    for index, timestep in enumerate(scheduler.timesteps):
        latents, predicted = torch.randn(2, 2, 4, 6, 5, generator=torch.Generator().manual_seed(index))
        generators = [torch.Generator().manual_seed(99) for _ in range(2)]
        fresh = torch.randn(latents.shape, generator=generators[0])
        expected = scheduler.step(predicted, timestep, latents, generator=generators[1]).prev_sample
        stepped, _ = schedule.step(index, latents, predicted, torch.zeros_like(latents), fresh)
        check(stepped, expected.numpy(), 2e-5)


@pytest.mark.parametrize(
    "change", [{"prediction_type": "v_prediction"}, {"variance_type": "fixed_large"}, {"thresholding": True}]
)
def test_other_schedules_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=f"scheduler has {next(iter(change))}"):
        NoiseSchedule.of(DDPMScheduler(**SCHEDULER | change), 4)


def test_seeded_noise_is_one_stream() -> None:
    shape = (1, 4, 3, 2)
    noise, same, other = SeededNoise(7), SeededNoise(7), SeededNoise(8)
    initial, first, second = noise.initial(shape), noise.step(0, shape), noise.step(1, shape)
    assert torch.equal(initial, same.initial(shape))
    assert torch.equal(first, same.step(0, shape))
    assert torch.equal(second, same.step(1, shape))
    assert not torch.equal(initial, other.initial(shape))
    assert not torch.equal(first, second)
    SeededNoise(2**63 - 1).initial(shape)


def test_posterior_noise_follows_from_slot_and_pixels() -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    shape = (1, 4, 2, 2)
    drawn = draw_posterior_noise("upper", (picture,), shape)
    assert torch.equal(drawn, draw_posterior_noise("upper", (picture.copy(),), shape))
    assert not torch.equal(drawn, draw_posterior_noise("lower", (picture,), shape))
    assert not torch.equal(drawn, draw_posterior_noise("upper", (picture.reshape(2, 8, 3),), shape))
    assert torch.equal(drawn, draw_posterior_noise("upper", (np.asfortranarray(picture),), shape))
    changed = picture.copy()
    changed[3, 3, 2] ^= 1
    assert not torch.equal(drawn, draw_posterior_noise("upper", (changed,), shape))


def test_posterior_noise_is_the_same_for_ever() -> None:
    # Another seed for the same picture would change every result that was ever made.
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert posterior_seed("upper", (picture, picture[..., 0])) == 7284844562033284391


def test_mask_is_cut_at_half() -> None:
    assert mask_to_tensor(np.array([[0, 127, 128, 255]], np.uint8)).tolist() == [[[[0.0, 0.0, 1.0, 1.0]]]]


def test_latent_mask_takes_the_first_pixel_of_eight() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:, 1:8] = 1
    assert make_condition(mask, torch.zeros(1, 4, 2, 2))[0, 0].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    mask[..., 8:, :1] = 1
    assert make_condition(mask, torch.zeros(1, 4, 2, 2))[0, 0].tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_composite_in_bfloat16_leaves_the_surroundings_alone() -> None:
    random = np.random.default_rng(0)
    person = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8] = 255
    generated = torch.full((1, 3, 16, 16), 3.0, dtype=torch.bfloat16).float()
    picture = composite(to_pixels(generated), person, mask)
    np.testing.assert_array_equal(picture[mask == 0], person[mask == 0])
    assert (picture[mask == 255] == 255).all()


def test_progress_counts_every_step() -> None:
    golden = read_vectors("pipeline_cfg1.npz")
    meta = read_meta(golden)
    unet = make_unet(meta["unet_config"], meta["unet_fill_seed"])
    schedule = NoiseSchedule.of(DDPMScheduler.from_config(meta["scheduler"]), 3)
    seen: list[tuple[int, int]] = []
    with torch.inference_mode():
        start = DenoiseInput(torch.zeros(2, 5, 8, 8), None, 1.0, SeededNoise(1))
        latents = denoise(unet, schedule, start, lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert latents.shape == (2, 4, 8, 8)


def test_decode_undoes_the_latent_scale() -> None:
    meta = read_meta(read_vectors("pipeline_cfg1.npz"))
    vae: AutoencoderKL = make_vae(meta["vae_config"], meta["vae_fill_seed"])
    latents = torch.randn(1, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    check(decode(PlainVAE(vae), latents * 0.18215), vae.decode(latents).sample.numpy(), 1e-5)
