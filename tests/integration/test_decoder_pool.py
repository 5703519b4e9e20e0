"""Large uploads: several decoding processes at once find what one finds, none of them stays long or is missed."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.intake.decoder import Decoder
from fastfit_watch.intake.decoder_pool import DecoderPool, affordable

COUNT = 40


def running() -> set[int]:
    """Process ids of the decoding processes of this one."""
    children = psutil.Process().children()
    return {child.pid for child in children if "fastfit_watch.intake.decoder" in " ".join(child.cmdline())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures that take a moment each, so that helpers are there before the last is done; some are faulty."""
    Image.effect_noise((1500, 2000), 60).convert("RGB").save(tmp_path / "0.png", compress_level=1)
    for number in range(1, COUNT):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_text("<html>")
    (tmp_path / "33.png").write_bytes((tmp_path / "0.png").read_bytes()[:5000])
    return tmp_path


@pytest.fixture
def names() -> list[str]:
    return [f"{number}.png" for number in range(COUNT)]


@pytest.fixture
def decoders() -> Iterator[DecoderPool]:
    with closing(DecoderPool(Limits(), most=3)) as opened:
        yield opened
    assert not running()


def test_helpers_find_what_one_finds_in_the_same_order(folder: Path, names: list[str], decoders: DecoderPool) -> None:
    seen: list[set[int]] = []
    found = decoders.inspect(folder, names, lambda: seen.append(running()))
    with closing(Decoder(Limits())) as alone:
        expected = alone.inspect(folder, names)
    assert list(found.items()) == list(expected.items())
    assert sum(isinstance(each, str) for each in found.values()) == 2
    assert max(map(len, seen)) == 3
    there = running()
    decoders.inspect(folder, names)
    assert running() == there, "uploads that follow each other are looked at by the same processes"


def test_helpers_leave_when_nothing_is_asked(folder: Path, names: list[str]) -> None:
    with closing(DecoderPool(Limits(), most=3, idle_s=0.5)) as decoders:
        decoders.inspect(folder, names[:1])
        kept = running()
        decoders.inspect(folder, names)
        deadline_s = time.monotonic() + 20
        while running() != kept:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        found = decoders.inspect(folder, names)
        assert list(found) == names and len(running() - kept) == 2, "and others come for the next large upload"


def test_a_helper_that_is_lost_costs_no_picture(folder: Path, names: list[str], decoders: DecoderPool) -> None:
    decoders.inspect(folder, names[:1])
    (kept,) = running()
    killed: list[int] = []

    def kill_a_helper() -> None:
        if not killed and (helpers := running() - {kept}):
            killed.append(helpers.pop())
            psutil.Process(killed[0]).kill()

    found = decoders.inspect(folder, names, kill_a_helper)
    assert killed
    assert {name for name, each in found.items() if isinstance(each, str)} == {"7.png", "33.png"}
    assert kept in running()


def test_small_uploads_start_no_helper(folder: Path, names: list[str], decoders: DecoderPool) -> None:
    seen: list[set[int]] = []
    decoders.inspect(folder, names[:3], lambda: seen.append(running()))
    assert len(set().union(*seen)) == 1


def test_a_machine_without_room_for_helpers_does_without(
    folder: Path, names: list[str], decoders: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders.inspect(folder, names[:1])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert list(decoders.inspect(folder, names)) == names


def test_a_failing_machine_is_said_and_blames_no_picture(
    folder: Path, names: list[str], decoders: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StorageError, match="cannot be started"):
        decoders.inspect(folder, names)
    monkeypatch.undo()
    assert list(decoders.inspect(folder, names)) == names


def test_processors_and_memory_bound_the_processes() -> None:
    assert 1 <= affordable(Limits()) <= 8
    assert affordable(Limits(decode_memory_bytes=2**50)) == 1
