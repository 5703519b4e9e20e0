"""Stillness. No test sleeps: time is an argument."""

from __future__ import annotations

import os

from fastfit_watch.intake.fingerprint import FileMark, digest_of
from fastfit_watch.intake.stability import Stillness, is_still, next_observation_s, observe

MARKS = (FileMark("anna.jpg", 1, 10, 100, 200), FileMark("outfit.yaml", 2, 20, 100, 200))


def test_the_digest_sees_every_field_and_no_order() -> None:
    assert digest_of(MARKS) == digest_of(MARKS[::-1])
    first = MARKS[0]
    others = [
        first._replace(name="b"),
        first._replace(inode=7),
        first._replace(size=7),
        first._replace(mtime_ns=7),
        first._replace(ctime_ns=7),
    ]
    assert len({digest_of((other, MARKS[1])) for other in (first, *others)}) == 6
    assert digest_of(MARKS) != digest_of(MARKS[:1])


def test_a_name_that_is_no_text_has_a_digest() -> None:
    assert digest_of((FileMark(os.fsdecode(b"\xff.jpg"), 1, 1, 1, 1),)) != digest_of(())


def test_stillness_is_counted_from_the_first_look_at_the_same_content() -> None:
    still = observe(None, "a", 100.0)
    assert not is_still(still, 5.0, 100.0), "one look proves nothing"
    still = observe(still, "a", 104.9)
    assert not is_still(still, 5.0, 104.9)
    assert is_still(observe(still, "a", 105.0), 5.0, 105.0)


def test_any_change_starts_the_wait_anew() -> None:
    still = observe(observe(None, "a", 100.0), "b", 104.0)
    assert still == Stillness("b", 104.0)
    assert not is_still(still, 5.0, 108.0)


def test_a_clock_set_back_never_shortens_the_wait() -> None:
    still = observe(observe(None, "a", 1000.0), "a", 10.0)
    assert still.since_s == 10.0
    assert not is_still(still, 5.0, 14.0) and is_still(still, 5.0, 15.0)


def test_the_next_look_falls_on_the_moment_a_verdict_can_change() -> None:
    still = Stillness("a", 100.0)
    assert next_observation_s(still, 5.0, 600.0, 101.0) == 4.0
    assert next_observation_s(still, 5.0, 600.0, 105.0) == 595.0
    assert next_observation_s(still, 5.0, 600.0, 700.0) is None
