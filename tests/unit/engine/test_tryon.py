"""The engine as a whole, on small networks from disk: what reaches a result, and what must never reach it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny_networks import PERSON_SIZE, DrawnParser, load_engine, write_bundle
from torch import Tensor

from fastfit_watch.domain.errors import EngineError, ImageError, OutOfMemory
from fastfit_watch.domain.look import Category, Framing, MaskMode, SamplingOptions
from fastfit_watch.engine.measurement import StageClock, memory_errors
from fastfit_watch.engine.pixels import Pixels
from fastfit_watch.engine.preprocessing.garments import fit_garment
from fastfit_watch.engine.preprocessing.person import mask_person, parse_person
from fastfit_watch.engine.tryon import TryOnEngine, TryOnResult

OPTIONS = SamplingOptions(steps=3, seed=11)
STAGES = {"parse", "mask", "encode", "references", "denoise", "decode", "composite"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TryOnEngine:
    return load_engine(write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def encoded(engine: TryOnEngine) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of all pictures that the VAE encodes during a test."""
    shapes: list[tuple[int, ...]] = []
    assert engine.fast is not None
    encode = engine.fast.vae.encode

    def watched(pixels: Tensor) -> tuple[Tensor, Tensor]:
        shapes.append(tuple(pixels.shape))
        return encode(pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.fast.vae, "encode", watched)
        yield shapes


def picture(seed: int, height: int, width: int) -> Image.Image:
    """Coloured patches, so that resizing has something to do."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


PERSON = picture(0, 120, 100)
SHIRT, JEANS, BAG = picture(1, 80, 60), picture(2, 90, 60), picture(3, 50, 50)
OUTFIT = {Category.UPPER: SHIRT, Category.BAG: BAG}


def pixels(result: TryOnResult) -> Pixels:
    return np.asarray(result.image)


def test_crop(engine: TryOnEngine) -> None:
    seen: list[tuple[int, int]] = []
    prepared = engine.prepare(PERSON, OUTFIT, OPTIONS)
    result = engine.sample(prepared, lambda *at: seen.append(at))

    assert (result.image.mode, result.image.size) == ("RGB", PERSON_SIZE[::-1])
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert result.seed == 11
    assert result.peak_vram_bytes is None
    assert set(result.seconds) == STAGES
    assert all(seconds >= 0 for seconds in result.seconds.values())
    framed = np.asarray(PERSON.crop((5, 0, 95, 120)).resize(PERSON_SIZE[::-1], Image.Resampling.LANCZOS))
    outside = prepared.mask == 0
    assert 0.1 < outside.mean() < 0.9
    np.testing.assert_array_equal(pixels(result)[outside], framed[outside])
    assert (pixels(result)[~outside] != framed[~outside]).mean() > 0.5


def test_same_seed_same_bytes(engine: TryOnEngine) -> None:
    one, two = (pixels(engine.try_on(PERSON, OUTFIT, OPTIONS)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = pixels(engine.try_on(PERSON, OUTFIT, replace(OPTIONS, seed=12)))
    assert (one != other).any()


def test_a_prepared_look_may_be_sampled_again(engine: TryOnEngine) -> None:
    prepared = engine.prepare(PERSON, OUTFIT, OPTIONS)
    np.testing.assert_array_equal(pixels(engine.sample(prepared)), pixels(engine.sample(prepared)))


@pytest.mark.parametrize("change", [{Category.UPPER: JEANS}, {Category.LOWER: JEANS}])
def test_every_garment_shows(engine: TryOnEngine, change: dict[Category, Image.Image]) -> None:
    one = pixels(engine.try_on(PERSON, OUTFIT, OPTIONS))
    assert (one != pixels(engine.try_on(PERSON, OUTFIT | change, OPTIONS))).any()


def test_slot_of_a_garment_shows(engine: TryOnEngine) -> None:
    one = pixels(engine.try_on(PERSON, {Category.UPPER: SHIRT}, OPTIONS))
    assert (one != pixels(engine.try_on(PERSON, {Category.LOWER: SHIRT}, OPTIONS))).any()


def test_order_of_garments_is_irrelevant(engine: TryOnEngine) -> None:
    turned = dict(reversed(OUTFIT.items()))
    assert list(turned) != list(OUTFIT)
    np.testing.assert_array_equal(
        pixels(engine.try_on(PERSON, OUTFIT, OPTIONS)), pixels(engine.try_on(PERSON, turned, OPTIONS))
    )


def test_only_what_is_given_is_encoded(engine: TryOnEngine, encoded: list[tuple[int, ...]]) -> None:
    engine.prepare(PERSON, OUTFIT, OPTIONS)
    assert encoded == [(1, 3, *PERSON_SIZE), (1, 3, 64, 48), (1, 3, 32, 24)]


def test_guidance_of_one_halves_the_rows(engine: TryOnEngine) -> None:
    assert predicted_rows(engine, replace(OPTIONS, guidance=1.0)) == [1, 1, 1]
    assert predicted_rows(engine, OPTIONS) == [2, 2, 2]


def predicted_rows(engine: TryOnEngine, options: SamplingOptions) -> list[int]:
    """Rows of the batch at each step of a look."""
    assert engine.fast is not None
    rows: list[int] = []
    predict = engine.fast.unet.predict

    def watched(*inputs: Any) -> Tensor:
        noise = predict(*inputs)
        rows.append(noise.shape[0])
        return noise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.fast.unet, "predict", watched)
        engine.try_on(PERSON, OUTFIT, options)
    return rows


def test_latents_of_a_garment_do_not_depend_on_its_look(engine: TryOnEngine) -> None:
    alone = engine.prepare(PERSON, {Category.BAG: BAG}, OPTIONS).references
    worn = engine.prepare(PERSON, OUTFIT, replace(OPTIONS, seed=5)).references
    assert torch.equal(alone[0].latents, worn[1].latents)


def test_a_failed_look_leaves_nothing_behind(engine: TryOnEngine) -> None:
    alone = pixels(engine.try_on(PERSON, OUTFIT, OPTIONS))

    def fail(done: int, steps: int) -> None:
        if done == 2:
            raise RuntimeError(f"stopped at {done} of {steps}")

    with pytest.raises(RuntimeError, match="stopped at 2 of 3"):
        engine.try_on(PERSON, {Category.DRESS: JEANS}, replace(OPTIONS, seed=1), fail)
    np.testing.assert_array_equal(pixels(engine.try_on(PERSON, OUTFIT, OPTIONS)), alone)


def test_two_threads_give_what_one_gives(engine: TryOnEngine) -> None:
    looks: list[dict[Category, Image.Image]] = [OUTFIT, {Category.DRESS: JEANS}]
    one_after_another = [pixels(engine.try_on(PERSON, look, OPTIONS)) for look in looks]
    meeting = threading.Barrier(2, timeout=60)

    def try_on(look: dict[Category, Image.Image]) -> Any:
        prepared = engine.prepare(PERSON, look, OPTIONS)
        # Both wait for each other after every step, so that their steps interleave for certain.
        return pixels(engine.sample(prepared, lambda done, steps: void(meeting.wait())))

    with ThreadPoolExecutor(2) as threads:
        at_once = list(threads.map(try_on, looks))
    for one, other in zip(one_after_another, at_once, strict=True):
        np.testing.assert_array_equal(one, other)


def void(value: object) -> None:
    """Drop a value."""


def test_the_next_look_is_prepared_while_one_is_sampled(engine: TryOnEngine) -> None:
    alone = engine.try_on(PERSON, {Category.LOWER: JEANS}, OPTIONS)
    prepared = engine.prepare(PERSON, OUTFIT, OPTIONS)
    with ThreadPoolExecutor(1) as thread:
        ahead: list[Any] = []

        def prepare_next(done: int, steps: int) -> None:
            if done == 1:
                ahead.append(thread.submit(engine.prepare, PERSON, {Category.LOWER: JEANS}, OPTIONS))

        engine.sample(prepared, prepare_next)
        np.testing.assert_array_equal(pixels(engine.sample(ahead[0].result())), pixels(alone))


@pytest.mark.parametrize(("height", "width"), [(301, 409), (90, 70), (250, 97)])
def test_paste_back(engine: TryOnEngine, height: int, width: int) -> None:
    original = picture(4, height, width)
    options = replace(OPTIONS, framing=Framing.PASTE_BACK, mask=MaskMode.WORN)
    prepared = engine.prepare(original, {Category.UPPER: SHIRT}, options)
    result = engine.sample(prepared)

    assert result.image.size == (width, height)
    assert prepared.mask.shape == PERSON_SIZE
    assert (pixels(result) != np.asarray(original)).any()
    # The drawn person's shirt ends at half the height: shoes and the ground stay as they are.
    np.testing.assert_array_equal(pixels(result)[int(0.9 * height) :], np.asarray(original)[int(0.9 * height) :])


def test_paste_back_cuts_pose_and_picture_alike() -> None:
    """The person carries its own pose drawing: where the crop shows the one, the cropped pose must show the other."""
    original = np.full((400, 640, 3), 40, np.uint8)
    pose = DrawnParser().parse(original).pose
    original[pose[..., 0] > 0] = (255, 0, 0)
    parsed = parse_person(Image.fromarray(original), Framing.PASTE_BACK, DrawnParser(), (384, 288))
    person = mask_person(parsed, [Category.UPPER], MaskMode.WORN)
    in_picture, in_pose = person.picture[..., 0] > 128, person.pose[..., 0] > 128
    assert in_pose.sum() > 500
    # The pose was drawn on the smaller parsed picture, so its edge may be off by a pixel or two of the original.
    assert (in_picture & in_pose).sum() / (in_picture | in_pose).sum() > 0.9
    columns = [np.flatnonzero(lit.any(axis=0)).mean() for lit in (in_picture, in_pose)]
    assert columns[0] == pytest.approx(columns[1], abs=3)


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("mask", list(MaskMode))
def test_nobody_in_the_picture(engine: TryOnEngine, framing: Framing, mask: MaskMode) -> None:
    with pytest.raises(EngineError, match="Nothing to repaint was found") as caught:
        engine.prepare(Image.new("RGB", (100, 120)), OUTFIT, replace(OPTIONS, framing=framing, mask=mask))
    assert caught.value.hint


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("size", [(31, 400), (400, 31), (4000, 40)])
def test_picture_that_leaves_nothing_to_parse(framing: Framing, size: tuple[int, int]) -> None:
    if framing is Framing.CROP and size == (4000, 40):
        size = (40, 8)
    with pytest.raises(ImageError, match="too small or too narrow"):
        parse_person(Image.new("RGB", size), framing, DrawnParser(), (1024, 768))


def test_look_without_garments(engine: TryOnEngine) -> None:
    with pytest.raises(EngineError, match="no garments"):
        engine.prepare(PERSON, {}, OPTIONS)


def test_look_without_a_seed(engine: TryOnEngine) -> None:
    with pytest.raises(EngineError, match="no seed"):
        engine.prepare(PERSON, OUTFIT, replace(OPTIONS, seed=None))


def test_garment_keeps_its_shape() -> None:
    square = Image.new("RGB", (60, 60), (10, 20, 30))
    fitted = fit_garment(square, (64, 48))
    np.testing.assert_array_equal(fitted[[0, 7, 56, 63]], 255)
    np.testing.assert_array_equal(fitted[8:56], np.broadcast_to((10, 20, 30), (48, 48, 3)))


@pytest.mark.parametrize("size", [(48, 64), (600, 800), (601, 795)])
def test_garment_of_nearly_the_right_shape_has_no_white_rim(size: tuple[int, int]) -> None:
    fitted = fit_garment(Image.new("RGB", size, (10, 20, 30)), (64, 48))
    np.testing.assert_array_equal(fitted, np.broadcast_to((10, 20, 30), (64, 48, 3)))


def test_garment_of_the_exact_size_is_not_touched() -> None:
    exact = picture(8, 64, 48)
    np.testing.assert_array_equal(fit_garment(exact, (64, 48)), np.asarray(exact))


def test_garment_that_is_a_line(engine: TryOnEngine) -> None:
    with pytest.raises(EngineError, match="'bag' is too narrow: 3000 x 2 pixels"):
        engine.prepare(picture(1, 96, 72), {Category.BAG: Image.new("RGB", (3000, 2))}, SamplingOptions(seed=1))


def test_out_of_memory_gets_its_own_error() -> None:
    with (
        pytest.raises(OutOfMemory, match="cuda:0 ran out of memory in the stage 'decode'"),
        memory_errors("cuda:0", "decode"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match="something else"), memory_errors("cuda:0", "decode"):
        raise RuntimeError("something else")


def test_a_failed_stage_has_no_time() -> None:
    clock = StageClock("cpu")
    with clock.stage("whole"):
        pass
    with pytest.raises(KeyError), clock.stage("failed"):
        raise KeyError
    assert set(clock.seconds) == {"whole"}
