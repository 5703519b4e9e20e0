"""The bench of an engine process, short of memory in one stage after another: each look is made one rung lower."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.tiny_classifier import write_classifier
from support.tiny_networks import load_engine, write_bundle

from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung, ladder
from fastfit_watch.domain.receipts import ReceiptSubject
from fastfit_watch.domain.worker_protocol import LookDone, LookFailed, LookOrder, LookWithheld, Message, RungLowered
from fastfit_watch.domain.worker_settings import WorkerSettings
from fastfit_watch.engine.content_filter import ContentFilter
from fastfit_watch.engine.tryon import PreparedLook, SampledLook, TryOnEngine
from fastfit_watch.imaging.provenance import what_runs
from fastfit_watch.system.failpoints import VARIABLE
from fastfit_watch.worker.engine_loading import LoadedEngine
from fastfit_watch.worker.pipeline import LookPipeline

SUBJECT = ReceiptSubject("spring", "ab", "anna.casual", 1, {})

PATIENCE_S = 120.0
# Where a look can run short; `step` is the second of the denoising's steps.
STAGES = ("parse", "mask", "encode", "references", "denoise", "step", "decode")


class Heard(list[Message]):
    """The daemon's end of the pipe: keeps what is sent, and can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def send(self, message: Message) -> None:
        self.append(message)
        if isinstance(message, LookDone | LookFailed | LookWithheld):
            self._ends.put(message)

    def next_end(self) -> Message:
        return self._ends.get(timeout=PATIENCE_S)


class SlowThird:
    """An engine whose third look is prepared only when `may_go` is set."""

    def __init__(self, engine: TryOnEngine, may_go: threading.Event) -> None:
        self._engine, self._may_go, self._calls = engine, may_go, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def prepare(self, *given: Any) -> PreparedLook:
        self._calls += 1
        if self._calls == 3:
            assert self._may_go.wait(PATIENCE_S)
        return self._engine.prepare(*given)


class Overlapping:
    """An engine whose second look is sampled until the third is prepared and the first is saved."""

    def __init__(self, engine: TryOnEngine) -> None:
        self._engine = engine
        self._prepared = self._developed = 0
        self.third_prepared, self.first_saved = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def prepare(self, *given: Any) -> PreparedLook:
        look = self._engine.prepare(*given)
        self._prepared += 1
        if self._prepared == 3:
            self.third_prepared.set()
        return look

    def denoise_and_decode(self, *given: Any) -> SampledLook:
        self._developed += 1
        if self._developed == 2:
            assert self.third_prepared.wait(PATIENCE_S) and self.first_saved.wait(PATIENCE_S)
        return self._engine.denoise_and_decode(*given)


class Bench:
    """A bench at work in a thread, with one person and one shirt."""

    def __init__(
        self,
        bundle: Path,
        root: Path,
        content_filter: ContentFilter | None = None,
        wrap: Callable[[TryOnEngine], Any] = lambda engine: engine,
    ) -> None:
        self.root, self.heard = root, Heard()
        self._orders: queue.SimpleQueue[LookOrder] = queue.SimpleQueue()
        for number, name in enumerate(("anna", "shirt")):
            pixels = np.random.default_rng(number).integers(0, 256, (120, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{name}.png")
        settings = WorkerSettings(EngineSetup("tiny", root, "cpu"))
        versions = what_runs("tiny", "1", "none", "float32", "cpu")
        bench = LookPipeline(LoadedEngine(wrap(load_engine(bundle)), content_filter, versions), self.heard, settings)  # type: ignore[arg-type]
        threading.Thread(target=bench.work, args=(self._orders,), daemon=True).start()

    def make(self, token: int, start: Rung = Rung.FULL, *, allow_smaller: bool = False) -> Message:
        self.order(token, start, allow_smaller=allow_smaller)
        return self.heard.next_end()

    def order(self, token: int, start: Rung = Rung.FULL, *, allow_smaller: bool = False) -> None:
        output, receipt = self.root / f"{token}.png", self.root / f"{token}.json"
        rungs, options = ladder(start, allow_smaller=allow_smaller), SamplingOptions(steps=2, seed=5)
        garments = {Category.UPPER: self.root / "shirt.png"}
        withheld = self.root / "withheld"
        self._orders.put(
            LookOrder(token, self.root / "anna.png", garments, options, output, receipt, {}, rungs, withheld, SUBJECT)
        )

    def picture(self, token: int) -> np.ndarray:
        with Image.open(self.root / f"{token}.png") as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    @property
    def lowered(self) -> list[tuple[Rung, Rung]]:
        return [(message.tried, message.rung) for message in self.heard if isinstance(message, RungLowered)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The picture that nothing was saved for."""
    bench = Bench(bundle, tmp_path_factory.mktemp("whole"))
    made = bench.make(0)
    assert (
        isinstance(made, LookDone) and (made.result.rung, made.result.shortages) == ("full", {}) and not bench.lowered
    )
    return bench.picture(0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_shortage_in_any_stage_ends_in_a_picture_one_rung_lower(
    bundle: Path, tmp_path: Path, whole: np.ndarray, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv(VARIABLE, f"memory.full.{stage}:{2 if stage == 'step' else 1}:ENOMEM")
    bench = Bench(bundle, tmp_path)
    made = bench.make(1)
    named = "denoise" if stage == "step" else stage
    assert isinstance(made, LookDone), made
    assert (made.result.rung, made.result.shortages) == ("halves", {"full": named})
    assert bench.lowered == [(Rung.FULL, Rung.HALVES)]
    assert f"in the stage '{named}'" in next(
        message.reason for message in bench.heard if isinstance(message, RungLowered)
    )
    np.testing.assert_allclose(bench.picture(1), whole, atol=1)

    monkeypatch.delenv(VARIABLE)
    again = bench.make(2)
    assert isinstance(again, LookDone) and again.result.shortages == {}, "nothing of the shortage is left"
    assert again.result.rung == "full", "an order that knows no better begins at the top"
    np.testing.assert_array_equal(bench.picture(2), whole)


def test_a_shortage_while_the_networks_are_moved_leads_on(
    bundle: Path, tmp_path: Path, whole: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "memory.full.decode:1:ENOMEM memory.halves.place:1:ENOMEM")
    bench = Bench(bundle, tmp_path)
    made = bench.make(1)
    assert isinstance(made, LookDone), made
    assert (made.result.rung, made.result.shortages) == ("offload", {"full": "decode", "halves": "place"})
    np.testing.assert_allclose(bench.picture(1), whole, atol=1)


def test_a_shortage_of_the_content_filter_is_one_of_the_look(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = write_classifier(tmp_path / "classifier", (3.0, 0.0, 0.0))
    content_filter = ContentFilter.load(str(classifier), ("nsfw",), 0.5, "cpu", tmp_path)
    monkeypatch.setenv(VARIABLE, "memory.full.filter:1:ENOMEM memory.halves.composite:1:ENOMEM")
    made = Bench(bundle, tmp_path, content_filter).make(1)
    assert isinstance(made, LookDone), made
    assert (made.result.rung, made.result.shortages) == ("offload", {"full": "filter", "halves": "composite"})


def test_pictures_shrink_with_permission_only(
    bundle: Path, tmp_path: Path, whole: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = " ".join(f"memory.{rung}.decode:1:ENOMEM" for rung in Rung if rung is not Rung.SMALLER)
    monkeypatch.setenv(VARIABLE, full)
    bench = Bench(bundle, tmp_path)
    refused = bench.make(1)
    assert isinstance(refused, LookFailed) and refused.kind == "memory"
    assert "Tried: full (decode), halves (decode), offload (decode), sequential (decode), tiles (decode)." in (
        refused.message
    )
    assert not (tmp_path / "1.png").exists()
    made = bench.make(2, Rung.TILES, allow_smaller=True)
    assert isinstance(made, LookDone) and made.result.rung == "smaller"
    assert bench.picture(2).shape[0] < whole.shape[0]


def test_a_look_never_waits_for_the_preparation_of_the_next(bundle: Path, tmp_path: Path) -> None:
    may_go = threading.Event()
    bench = Bench(bundle, tmp_path, wrap=partial(SlowThird, may_go=may_go))
    for token in range(3):
        bench.order(token)
    try:
        # The third is being prepared all the while.
        assert [type(bench.heard.next_end()) for _ in range(2)] == [LookDone, LookDone]
    finally:
        may_go.set()
    assert isinstance(bench.heard.next_end(), LookDone)


def test_while_a_look_is_sampled_the_next_is_prepared_and_the_last_is_saved(bundle: Path, tmp_path: Path) -> None:
    engine = Overlapping(load_engine(bundle))
    bench = Bench(bundle, tmp_path, wrap=lambda _: engine)
    for token in range(3):
        bench.order(token)
    first = bench.heard.next_end()
    assert isinstance(first, LookDone) and first.token == 0 and (tmp_path / "0.png").exists()
    engine.first_saved.set()
    assert [type(bench.heard.next_end()) for _ in range(2)] == [LookDone, LookDone]
    assert engine.third_prepared.is_set()
