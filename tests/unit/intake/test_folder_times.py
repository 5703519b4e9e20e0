"""Which folders are read again: each that changed, and of many quiet ones only a few at a time. No test sleeps."""

from __future__ import annotations

from fastfit_watch.intake.folder_times import BLUR_S, FEW, FolderTimes

BEFORE, AFTER = (1, 10, 10), (1, 20, 20)


def test_a_folder_is_read_when_it_is_new_or_its_times_moved() -> None:
    folder_times = FolderTimes()
    assert folder_times.is_changed("a", BEFORE, 0.0) and "a" not in folder_times
    folder_times.note_read("a", BEFORE, 0.0)
    assert not folder_times.is_changed("a", BEFORE, 1.0)
    assert folder_times.is_changed("a", AFTER, 1.0)
    assert folder_times.is_changed("a", (2, 10, 10), 1.0), "another folder under the same name"


def test_a_change_within_the_grain_of_the_clock_is_found_by_a_second_reading() -> None:
    folder_times = FolderTimes()
    folder_times.note_read("a", BEFORE, 0.0)
    assert not folder_times.is_changed("a", BEFORE, BLUR_S - 0.1), "not before the grain is over"
    assert folder_times.is_changed("a", BEFORE, BLUR_S)
    folder_times.note_read("a", BEFORE, BLUR_S)
    assert not folder_times.is_changed("a", BEFORE, 1e6), "and never after that"


def test_few_uploads_are_read_at_every_scan_and_many_in_turn() -> None:
    folder_times = FolderTimes()
    folder_times.note_read("a", BEFORE, 0.0)
    assert folder_times.is_due("a", 1e6, FEW, 0.0)
    assert not folder_times.is_due("a", 1e6, 10_000, 199.0)
    assert folder_times.is_due("a", 1e6, 10_000, 200.0)
    assert folder_times.is_due("a", 8.0, 10_000, 1.0), "one that changed a moment ago is read soon"


def test_what_is_gone_is_forgotten() -> None:
    folder_times = FolderTimes()
    for name in "abc":
        folder_times.note_read(name, BEFORE, 0.0)
    folder_times.keep_only({"a", "b"})
    folder_times.forget("a")
    assert (len(folder_times), "b" in folder_times) == (1, True)
    folder_times.forget_all()
    assert len(folder_times) == 0
