"""The pauses of exponential backoff."""

from __future__ import annotations

from fastfit_watch.system.backoff import backoff_s


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    assert [backoff_s(failures, 5.0, 30.0) for failures in range(1, 6)] == [5.0, 10.0, 20.0, 30.0, 30.0]


def test_failures_without_end_are_no_overflow() -> None:
    assert backoff_s(100_000, 1.0, 300.0) == 300.0
