"""Tests run side by side, a few at a time (pytest-xdist): most of them wait for a daemon to do something.

Those marked `alone` measure times, so nothing else runs beside them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Threads of several tests would wait for each other; where somebody asks for more than one, those that wait leave the
# processor to others instead of turning in circles. Set before anything imports torch; children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def _holding(path: Path, kind: int) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, kind)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test that is to be alone wait for all others, and them for it."""
    folder: Path = item.session.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    next_turn, running = folder / "next-turn.lock", folder / "running.lock"
    alone = item.get_closest_marker("alone") is not None
    with _holding(next_turn, fcntl.LOCK_EX):  # no other test begins while one waits to be alone
        entering = _holding(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        entering.__enter__()
    try:
        return (yield)
    finally:
        entering.__exit__(None, None, None)
