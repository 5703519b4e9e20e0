"""Texts written by a thread, to a stream whose reader may be slow or gone."""

from __future__ import annotations

import io
import os

from fastfit_watch.daemon.stream_writer import StreamWriter

PATIENCE_S = 120.0


def test_texts_are_written_in_order_and_none_is_dropped() -> None:
    stream, dropped = io.StringIO(), list[int]()
    writer = StreamWriter(stream, dropped.append)
    for number in range(100):
        writer.write(f"{number}\n")
    assert writer.flush(PATIENCE_S)
    assert stream.getvalue().split() == [str(number) for number in range(100)]
    assert dropped == []


def test_a_reader_that_is_gone_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        writer = StreamWriter(stream, lambda texts: None)
        writer.write("for nobody\n")
        assert writer.flush(PATIENCE_S)
