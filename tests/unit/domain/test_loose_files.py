"""What people read of files that belong to no upload."""

from __future__ import annotations

import os

from fastfit_watch.domain.loose_files import LooseFiles


def test_one_file_and_many_are_named_with_the_fix() -> None:
    one = LooseFiles.of(["anna.jpg"])
    assert one.message == "1 file lies directly in inputs/ and is not used: anna.jpg."
    assert "folder of its own" in one.fix
    many = LooseFiles.of([f"p{number}.jpg" for number in range(5)])
    assert many.message == "5 files lie directly in inputs/ and are not used: p0.jpg, p1.jpg, p2.jpg and 2 more."


def test_an_archive_is_called_one() -> None:
    loose = LooseFiles.of(["anna.jpg", "spring.ZIP"])
    assert loose.sentence.endswith("spring.ZIP is an archive: unpack it, and upload the folder.")


def test_a_note_is_read_as_it_was_written() -> None:
    loose = LooseFiles.of([os.fsdecode(b"\xff.jpg"), "花子.jpg", *(f"p{number}" for number in range(100))])
    assert LooseFiles.from_note(loose.to_note()) == loose and loose.count == 102
    assert LooseFiles.from_note(None).count == 0
    assert loose.sentence.isprintable() or "花子" in loose.sentence
