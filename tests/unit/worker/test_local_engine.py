"""The Python face: pictures in any form give one result, and a bad request is refused before anything is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.tiny_networks import DrawnParser, write_bundle

from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.errors import ConfigError, EngineError, FastFitError, ImageError, OutOfMemory
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.imaging.codec import open_image
from fastfit_watch.imaging.provenance import read_options, wanted_hashes
from fastfit_watch.imaging.xmp import read_marks
from fastfit_watch.system.failpoints import VARIABLE
from fastfit_watch.worker.engine_loading import LoadedEngine, load_engine
from fastfit_watch.worker.local_engine import FastFitEngine


class Listener:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def show(self, progress: object) -> None:
        self.lines.append(str(progress))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedEngine:
    root = write_bundle(tmp_path_factory.mktemp("bundle"))
    loaded = load_engine(EngineSetup(str(root), root.parent, "cpu"), Listener())
    return replace(loaded, engine=replace(loaded.engine, parser=DrawnParser()))


@pytest.fixture
def engine(loaded: LoadedEngine) -> FastFitEngine:
    return FastFitEngine(loaded, tuple(Rung), Listener())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(("anna", "shirt", "gown")):
        pixels = np.random.default_rng(number).integers(0, 256, (120, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{name}.png")
    return root


def pixels(image: Image.Image) -> bytes:
    return image.convert("RGB").tobytes()


def test_paths_images_and_arrays_give_one_picture(engine: FastFitEngine, folder: Path) -> None:
    person, shirt = folder / "anna.png", folder / "shirt.png"
    by_path = engine.try_on(person, {"upper": str(shirt)}, steps=2, seed=5)
    opened = engine.try_on(Image.open(person), {"upper": np.asarray(Image.open(shirt))}, steps=2, seed=5)
    assert pixels(by_path.image) == pixels(opened.image)
    assert (by_path.seed, by_path.peak_vram_bytes, by_path.rung) == (5, None, Rung.FULL)
    assert {"parse", "denoise", "decode"} <= set(by_path.seconds)


def test_an_image_is_laid_on_white_and_turned_upright_as_a_file_is(engine: FastFitEngine, folder: Path) -> None:
    clear = Image.open(folder / "shirt.png").convert("RGBA")
    clear.putalpha(Image.radial_gradient("L").resize(clear.size))
    clear.save(folder / "clear.png")
    by_path = engine.try_on(folder / "anna.png", {"upper": folder / "clear.png"}, steps=2, seed=5)
    by_image = engine.try_on(folder / "anna.png", {"upper": clear}, steps=2, seed=5)
    assert pixels(by_path.image) == pixels(by_image.image)


def test_a_second_look_of_a_person_uses_what_was_made(engine: FastFitEngine, folder: Path) -> None:
    person = Image.open(folder / "anna.png")
    engine.try_on(person, {"upper": folder / "shirt.png"}, steps=2, seed=5)
    again = engine.try_on(person, {"dress": folder / "gown.png"}, steps=2, seed=5)
    assert again.cache["person.hit"] == 1


def test_a_seed_is_drawn_and_named(engine: FastFitEngine, folder: Path) -> None:
    drawn = engine.try_on(folder / "anna.png", {"upper": folder / "shirt.png"}, steps=2)
    again = engine.try_on(folder / "anna.png", {"upper": folder / "shirt.png"}, steps=2, seed=drawn.seed)
    assert pixels(drawn.image) == pixels(again.image)


def test_options_count_and_steps_and_seed_go_before_them(engine: FastFitEngine, folder: Path) -> None:
    options = SamplingOptions(steps=50, seed=1, guidance=1.0)
    seen: list[tuple[int, int]] = []
    result = engine.try_on(
        folder / "anna.png",
        {"upper": folder / "shirt.png"},
        steps=2,
        seed=5,
        options=options,
        on_step=lambda *at: seen.append(at),
    )
    assert (result.seed, seen) == (5, [(1, 2), (2, 2)])
    guided = engine.try_on(folder / "anna.png", {"upper": folder / "shirt.png"}, steps=2, seed=5)
    assert pixels(result.image) != pixels(guided.image)


def test_words_are_read_as_in_a_manifest(engine: FastFitEngine, folder: Path) -> None:
    seen: list[int] = []
    result = engine.try_on(
        folder / "anna.png",
        {"upper": folder / "shirt.png"},
        seed=5,
        preset="Draft",
        framing="PASTE_BACK",
        mask="worn",
        on_step=lambda step, steps: seen.append(steps),
    )
    assert set(seen) == {6}
    assert result.image.size == open_image(folder / "anna.png").size


def test_process_saves_a_picture_that_can_be_made_again(engine: FastFitEngine, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "output.webp"
    result = engine.process(folder / "anna.png", folder / "shirt.png", steps=2, seed=5, output=output)
    marks = read_marks(output)
    assert (read_options(marks).seed, read_options(marks).steps) == (5, 2)
    assert set(wanted_hashes(marks)) == {"person", "upper"}
    assert open_image(output).size == result.image.size


def test_process_takes_pictures_without_files(engine: FastFitEngine, folder: Path, tmp_path: Path) -> None:
    opened = Image.open(folder / "anna.png")
    output = tmp_path / "output.png"
    result = engine.process(opened, dress=folder / "gown.png", steps=2, seed=5, output=output)
    assert pixels(open_image(output)) == pixels(result.image)
    assert wanted_hashes(read_marks(output)) == {}
    assert read_marks(output)["model"] == "tiny"


@pytest.mark.parametrize(
    ("garments", "extra", "error", "words"),
    [
        ({}, {}, ConfigError, "no garment"),
        ({"hat": "shirt.png"}, {}, ConfigError, "no slot 'hat'"),
        ({"dress": "gown.png", "upper": "shirt.png"}, {}, ConfigError, "Configuration Conflict"),
        ({"upper": "shirt.png"}, {"steps": 0}, ConfigError, "'steps' must be a whole number from 1 to 200, not 0"),
        ({"upper": "shirt.png"}, {"seed": -1}, ConfigError, "'seed' must be"),
        ({"upper": "shirt.png"}, {"mask": "half"}, ConfigError, "'mask' must be full or worn, not 'half'"),
        ({"upper": "shirt.png"}, {"step": 5}, ConfigError, "no option 'step'"),
        ({"upper": "text.png"}, {}, ImageError, "is not a JPEG, PNG, WebP or AVIF picture"),
        ({"upper": "gone.png"}, {}, FileNotFoundError, "gone.png"),
    ],
)
def test_a_bad_request(
    engine: FastFitEngine,
    folder: Path,
    garments: dict[str, str],
    extra: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    (folder / "text.png").write_text("not a picture, only words that are longer than a signature")
    worn = {slot: folder / name for slot, name in garments.items()}
    with pytest.raises(error, match=words):
        engine.try_on(folder / "anna.png", worn, **extra)


def test_nobody_in_the_picture(engine: FastFitEngine, folder: Path) -> None:
    with pytest.raises(EngineError, match="Nothing to repaint"):
        engine.try_on(Image.new("RGB", (60, 80)), {"upper": folder / "shirt.png"}, steps=2)


def test_a_full_device_leads_down_the_ladder_and_is_reported(
    loaded: LoadedEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    engine = FastFitEngine(loaded, (Rung.FULL, Rung.HALVES), listener)
    whole = engine.try_on(folder / "anna.png", {"upper": folder / "shirt.png"}, steps=2, seed=5)
    monkeypatch.setenv(VARIABLE, "memory.full.decode:1:ENOMEM")
    lower = engine.try_on(folder / "anna.png", {"upper": folder / "shirt.png"}, steps=2, seed=5)
    assert lower.rung is Rung.HALVES
    assert ["decode" in line and "Trying the next" in line for line in listener.lines] == [True]
    difference = np.asarray(lower.image).astype(int) - np.asarray(whole.image)
    assert int(np.abs(difference).max()) <= 1
    monkeypatch.setenv(VARIABLE, "memory.halves.decode:1:ENOMEM")
    with pytest.raises(OutOfMemory):
        engine.try_on(folder / "anna.png", {"upper": folder / "shirt.png"}, steps=2, seed=5)


def test_load_takes_a_path_and_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FastFitError, match=r"bundle\.json is missing"):
        FastFitEngine.load(tmp_path / "nothing", device="cpu")
    with pytest.raises(ConfigError, match="no dtype 'float7'"):
        FastFitEngine.load("mini", device="cpu", dtype="float7")


def test_every_slot_has_its_argument(engine: FastFitEngine) -> None:
    arguments = FastFitEngine.process.__annotations__
    assert {category.value for category in Category} <= set(arguments)
