"""Which folders are read again: each that changed, and of many quiet ones only a few at a time. No test sleeps."""

from __future__ import annotations

from fastfit_watch.intake.folder_times import BLUR_S, FEW, FolderTimes

BEFORE, AFTER = (1, 10, 10), (1, 20, 20)


def test_a_folder_is_read_when_it_is_new_or_its_times_moved() -> None:
    stamps = FolderTimes()
    assert stamps.is_changed("a", BEFORE, 0.0) and "a" not in stamps
    stamps.note_read("a", BEFORE, 0.0)
    assert not stamps.is_changed("a", BEFORE, 1.0)
    assert stamps.is_changed("a", AFTER, 1.0)
    assert stamps.is_changed("a", (2, 10, 10), 1.0), "another folder under the same name"


def test_a_change_within_the_grain_of_the_clock_is_found_by_a_second_reading() -> None:
    stamps = FolderTimes()
    stamps.note_read("a", BEFORE, 0.0)
    assert not stamps.is_changed("a", BEFORE, BLUR_S - 0.1), "not before the grain is over"
    assert stamps.is_changed("a", BEFORE, BLUR_S)
    stamps.note_read("a", BEFORE, BLUR_S)
    assert not stamps.is_changed("a", BEFORE, 1e6), "and never after that"


def test_few_uploads_are_read_at_every_scan_and_many_in_turn() -> None:
    stamps = FolderTimes()
    stamps.note_read("a", BEFORE, 0.0)
    assert stamps.is_due("a", 1e6, FEW, 0.0)
    assert not stamps.is_due("a", 1e6, 10_000, 199.0)
    assert stamps.is_due("a", 1e6, 10_000, 200.0)
    assert stamps.is_due("a", 8.0, 10_000, 1.0), "one that changed a moment ago is read soon"


def test_what_is_gone_is_forgotten() -> None:
    stamps = FolderTimes()
    for name in "abc":
        stamps.note_read(name, BEFORE, 0.0)
    stamps.keep_only({"a", "b"})
    stamps.forget("a")
    assert (len(stamps), "b" in stamps) == (1, True)
    stamps.forget_all()
    assert len(stamps) == 0
