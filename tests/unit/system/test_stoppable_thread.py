"""A thread that can be asked to end."""

from __future__ import annotations

import threading

from fastfit_watch.system.stoppable_thread import StoppableThread

PATIENCE_S = 120.0


def test_a_pause_ends_when_the_thread_is_asked_to_end() -> None:
    turns: list[bool] = []

    def work() -> None:
        turns.append(thread.wait(0.0))
        turns.append(thread.wait(PATIENCE_S))

    thread = StoppableThread("worker", work)
    assert not thread.is_alive
    thread.start()
    thread.stop(PATIENCE_S)
    assert not thread.is_alive
    assert thread.is_stopping
    assert turns[-1] is True


def test_a_thread_that_waits_for_something_else_is_woken() -> None:
    woken = threading.Event()
    thread = StoppableThread("worker", lambda: _wait(woken), wake=woken.set)
    thread.start()
    thread.stop()
    assert not thread.is_alive


def test_stopping_waits_no_longer_than_it_may() -> None:
    may_end = threading.Event()
    thread = StoppableThread("worker", lambda: _wait(may_end))
    thread.start()
    thread.stop(0.0)
    assert thread.is_alive
    may_end.set()
    thread.stop()
    assert not thread.is_alive


def test_one_that_never_began_is_stopped_at_once() -> None:
    thread = StoppableThread("worker", lambda: None)
    thread.stop()
    assert thread.is_stopping
    assert not thread.is_alive


def _wait(event: threading.Event) -> None:
    event.wait(PATIENCE_S)
