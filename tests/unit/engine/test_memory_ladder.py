"""The memory ladder in the engine: every rung, and a shortage in every stage. On tiny networks, and the exact rungs on
the shipped mini bundle, too."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny_networks import PERSON_SIZE, DrawnParser, load_engine, write_bundle
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.domain.errors import OutOfMemory
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung, ladder
from fastfit_watch.engine.autoencoding import PlainVAE
from fastfit_watch.engine.bundle import SHIPPED_MINI, Bundle
from fastfit_watch.engine.measurement import is_out_of_memory
from fastfit_watch.engine.memory_ladder import at_work, descend, place, shrink
from fastfit_watch.engine.preprocessing.picture import Picture
from fastfit_watch.engine.references import read_references
from fastfit_watch.engine.tryon import LoadOptions, TryOnEngine, TryOnResult
from fastfit_watch.mini.drawing.figures import draw_garment, draw_person
from fastfit_watch.system.failpoints import VARIABLE

OPTIONS = SamplingOptions(steps=3, seed=11)
PERSON = Image.fromarray(draw_person(40, (512, 384)))
OUTFIT = {
    Category.UPPER: Image.fromarray(draw_garment(60, Category.UPPER, (256, 192))),
    Category.LOWER: Image.fromarray(draw_garment(80, Category.LOWER, (256, 192))),
    Category.BAG: Image.fromarray(draw_garment(90, Category.BAG, (128, 96))),
}
STAGES = ("parse", "encode", "references", "denoise", "step", "decode")
# How often the kernel must give a page while ten large blocks are used one after the other: without and with it.
TOUCHES = """
import ctypes, resource
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: where the kernel gives huge pages, there are few to count
from fastfit_watch.system.malloc import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        bytearray(24 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults()
keep_freed_memory()
bytearray(24 * 2**20)
print(without, faults())
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def engine(root: Path) -> TryOnEngine:
    return load_engine(root)


@pytest.fixture(scope="module")
def full(root: Path) -> TryOnResult:
    """The picture that nothing was saved for."""
    return load_engine(root).try_on(PERSON, OUTFIT, OPTIONS)


def levels(result: TryOnResult) -> np.ndarray:
    return np.asarray(result.image).astype(int)


def test_exact_rungs_give_the_mini_bundles_picture() -> None:
    engine = TryOnEngine.load(Bundle.open(SHIPPED_MINI), "cpu", LoadOptions(torch.float32))
    options = replace(OPTIONS, steps=2)
    full = engine.try_on(PERSON, OUTFIT, options)
    for rung in (Rung.HALVES, Rung.SEQUENTIAL):
        engine = engine.on_rung(rung)
        np.testing.assert_allclose(levels(engine.try_on(PERSON, OUTFIT, options)), levels(full), atol=1)


@pytest.mark.parametrize("rung", [Rung.HALVES, Rung.OFFLOAD, Rung.SEQUENTIAL])
def test_exact_rungs_give_the_same_picture(engine: TryOnEngine, full: TryOnResult, rung: Rung) -> None:
    assert rung.is_exact
    lower = engine.on_rung(rung).try_on(PERSON, OUTFIT, OPTIONS)
    assert lower.rung is rung
    np.testing.assert_allclose(levels(lower), levels(full), atol=1)
    assert (levels(lower) != levels(full)).mean() < 0.001


@pytest.mark.parametrize("rung", list(Rung))
def test_no_group_norm_is_given_channels_last_planes_on_a_cpu(
    root: Path, monkeypatch: pytest.MonkeyPatch, rung: Rung
) -> None:
    plain, seen = functional.group_norm, []

    def watched(planes: Tensor, *rest: Any) -> Tensor:
        seen.append(planes.is_contiguous())
        return plain(planes, *rest)

    monkeypatch.setattr(functional, "group_norm", watched)
    engine = load_engine(root).on_rung(rung)
    engine.try_on(PERSON, OUTFIT, OPTIONS)
    TryOnEngine.load(Bundle.open(root), "cpu").parser.parse(np.asarray(PERSON))
    assert len(seen) > 100
    assert all(seen)


def test_halves_never_show_the_network_more_than_one_row(engine: TryOnEngine) -> None:
    rows: list[int] = []
    for layer in (engine.unet.conv_in, engine.unet.condition_conv_in):
        layer.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[0]))
    engine.on_rung(Rung.HALVES).try_on(PERSON, OUTFIT, OPTIONS)
    assert set(rows) == {1}
    assert len(rows) == 2 * (len(OUTFIT) + OPTIONS.steps)


def test_halves_of_the_references_are_those_of_the_whole(engine: TryOnEngine) -> None:
    prepared = engine.prepare(PERSON, OUTFIT, OPTIONS)
    with torch.inference_mode():
        whole, parted = (
            read_references(engine.unet, prepared.references, 2.5, halves=halves) for halves in (False, True)
        )
    for name, layer in whole.layers.items():
        torch.testing.assert_close(parted.layers[name].keys, layer.keys, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(parted.layers[name].values, layer.values, rtol=1e-4, atol=1e-5)
        assert whole.half(1).layers[name].keys.data_ptr() != layer.keys.data_ptr()
        torch.testing.assert_close(whole.half(1).layers[name].keys, layer.keys[1:])


def test_tiles_give_nearly_the_same_picture_and_really_tile(engine: TryOnEngine, full: TryOnResult) -> None:
    sides: list[int] = []
    engine.vae.decoder.register_forward_pre_hook(lambda module, inputs: sides.append(max(inputs[0].shape[2:])))
    tiled = engine.on_rung(Rung.TILES).try_on(PERSON, OUTFIT, OPTIONS)
    assert len(sides) > 1 and max(sides) < max(PERSON_SIZE) // 4
    difference = np.abs(levels(tiled) - levels(full))
    assert not Rung.TILES.is_exact and difference.max() > 1, "tiles are not exact, and are said not to be"
    assert difference.mean() < 20


def test_smaller_pictures_are_three_quarters(engine: TryOnEngine) -> None:
    result = engine.on_rung(Rung.SMALLER).try_on(PERSON, OUTFIT, OPTIONS)
    assert result.image.size == (48, 72)
    bundle = replace(engine.bundle, person_size=(1024, 768), accessory_size=(512, 384))
    small = shrink(bundle, Rung.SMALLER)
    assert (small.person_size, small.accessory_size) == ((768, 576), (384, 288))
    assert shrink(bundle, Rung.TILES) is bundle


def test_every_way_down_and_up_again_leads_to_the_same_bytes(engine: TryOnEngine, full: TryOnResult) -> None:
    for lower in (Rung.SMALLER, Rung.HALVES, Rung.SEQUENTIAL, Rung.OFFLOAD, Rung.TILES):
        engine = engine.on_rung(lower)
        engine = engine.on_rung(Rung.FULL)
    assert engine.rung is Rung.FULL
    np.testing.assert_array_equal(levels(engine.try_on(PERSON, OUTFIT, OPTIONS)), levels(full))


def test_what_was_kept_is_let_go_on_the_way_down(engine: TryOnEngine) -> None:
    engine.try_on(PERSON, {slot: Picture(partial(image.copy), slot) for slot, image in OUTFIT.items()}, OPTIONS)
    assert engine.cache.use.host_bytes > 0
    assert engine.on_rung(Rung.HALVES).cache.use.host_bytes == 0


def test_loading_on_a_low_rung(root: Path, full: TryOnResult) -> None:
    engine = replace(TryOnEngine.load(Bundle.open(root), "cpu", rung=Rung.SEQUENTIAL), parser=DrawnParser())
    assert all(parameter.is_meta for network in (engine.unet, engine.vae) for parameter in network.parameters())
    assert PlainVAE(engine.vae).device == torch.device("cpu")
    np.testing.assert_allclose(levels(engine.try_on(PERSON, OUTFIT, OPTIONS)), levels(full), atol=1)


class Recorded(nn.Linear):
    """A network that tells where it was moved, and refuses to work anywhere but on the device."""

    def __init__(self, moves: list[str], name: str) -> None:
        super().__init__(1, 1)
        self.moves, self.name, self.place = moves, name, ""

    def to(self, device: str) -> Recorded:  # type: ignore[override]
        self.place = device
        self.moves.append(f"{self.name} {device}")
        return self


def test_offload_keeps_only_the_network_at_work_on_the_device() -> None:
    moves: list[str] = []
    vae, parser = Recorded(moves, "vae"), Recorded(moves, "parser")
    for networks in ([vae], [parser]):
        with at_work(networks, "cuda:7", Rung.OFFLOAD):
            assert [network.place for network in networks] == ["cuda:7"]
    with pytest.raises(KeyError), at_work([vae], "cuda:7", Rung.TILES):
        raise KeyError
    moved = ["vae cuda:7", "vae cpu", "parser cuda:7", "parser cpu", "vae cuda:7", "vae cpu"]
    assert moves == moved
    with at_work([vae], "cuda:7", Rung.HALVES):
        assert moves == moved


@pytest.mark.parametrize("stage", STAGES)
def test_a_shortage_in_any_stage_is_named(engine: TryOnEngine, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    monkeypatch.setenv(VARIABLE, f"memory.full.{stage}:{2 if stage == 'step' else 1}:ENOMEM")
    with pytest.raises(OutOfMemory) as caught:
        engine.try_on(PERSON, OUTFIT, OPTIONS)
    assert caught.value.stage == ("denoise" if stage == "step" else stage)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_loading_goes_down_the_ladder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "memory.full.load:1:ENOMEM")
    tried: list[Rung] = []
    bundle = Bundle.open(root)
    engine = descend(
        ladder(Rung.FULL, allow_smaller=False),
        lambda rung: TryOnEngine.load(bundle, "cpu", rung=rung),
        lambda rung, error: tried.append(rung),
    )
    assert (tried, engine.rung) == ([Rung.FULL], Rung.HALVES)


class Ballast:
    """Stands for tensors in the frames of a failed attempt."""


def test_an_attempt_is_gone_before_the_next_begins() -> None:
    held: list[weakref.ref[Ballast]] = []

    def attempt(rung: Rung) -> Rung:
        assert all(ballast() is None for ballast in held), "memory of the last attempt is still held"
        ballast = Ballast()
        held.append(weakref.ref(ballast))
        if rung is not Rung.SEQUENTIAL:
            raise OutOfMemory("full", stage="decode")
        return rung

    told: list[tuple[Rung, str]] = []
    assert descend(list(Rung), attempt, lambda rung, error: told.append((rung, error.stage))) is Rung.SEQUENTIAL
    assert told == [(Rung.FULL, "decode"), (Rung.HALVES, "decode"), (Rung.OFFLOAD, "decode")]
    with pytest.raises(OutOfMemory):
        descend([Rung.FULL, Rung.HALVES], attempt, lambda rung, error: None)


def test_networks_that_do_not_fit_wait_in_the_machines_memory(engine: TryOnEngine) -> None:
    class Refused(nn.Linear):
        def to(self, device: str) -> Refused:  # type: ignore[override]
            if device != "cpu":
                raise torch.OutOfMemoryError("full")
            return self

    moves: list[str] = []
    with pytest.raises(torch.OutOfMemoryError):
        place(Recorded(moves, "unet"), engine.vae, [Refused(1, 1)], "cpu:0", Rung.HALVES, (64, 48))  # type: ignore[arg-type]
    assert moves == ["unet cpu", "unet cpu:0", "unet cpu"]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_a_full_device_says(error: Exception, full: bool) -> None:
    assert is_out_of_memory(error) is full


def ladders() -> Iterator[tuple[Rung, ...]]:
    for allowed in (False, True):
        for start in Rung:
            yield ladder(start, allow_smaller=allowed)


def test_memory_of_pictures_is_kept_for_the_next() -> None:
    done = subprocess.run([sys.executable, "-c", TOUCHES], capture_output=True, text=True, timeout=240, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 10 * 1000, "else there is nothing to be saved here, and no need for it"
    assert after < 500


def test_the_ladder_goes_down_only_and_is_never_smaller_unasked() -> None:
    order = list(Rung)
    for rungs in ladders():
        assert all(order.index(one) < order.index(two) for one, two in pairwise(rungs))
    assert ladder(Rung.OFFLOAD, allow_smaller=False) == (Rung.OFFLOAD, Rung.SEQUENTIAL, Rung.TILES)
    assert ladder(Rung.SMALLER, allow_smaller=False) == ()
    assert ladder(Rung.FULL, allow_smaller=True) == tuple(Rung)
