"""Decodes the pictures of one upload in several processes at once, so that its work begins sooner."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.imaging.codec import ImageFacts
from fastfit_watch.intake.decoder import Decoder

_MOST = 8
_PICTURES_EACH = 4  # fewer are decoded before another process is there
_IDLE_S = 60.0  # uploads often come in a row; an idle machine keeps one process
_MEMORY_SHARE = 4  # of the machine's memory, what all of them together may use at the most

Work = Callable[[Decoder], None]


class DecoderPool:
    """Does what `Decoder` does, with helpers for uploads of more than a few pictures. For one thread at a time.

    One decoding process is kept until the pool is closed; a helper's ends when it has had no work for a while.
    """

    def __init__(self, limits: Limits, most: int | None = None, idle_s: float = _IDLE_S) -> None:
        """most: processes at once; None lets the machine's processors and memory decide."""
        self._limits, self._idle_s = limits, idle_s
        self._most = affordable(limits) if most is None else most
        self._kept = Decoder(limits)
        self._helpers: list[_Helper] = []

    def inspect(
        self,
        folder: Path,
        names: Sequence[str],
        on_picture: Callable[[], None] = lambda: None,
        proven: Collection[str] = (),
    ) -> Mapping[str, ImageFacts | str]:
        """Do what `Decoder.inspect` does. on_picture is called after each picture of this thread."""
        waiting, found = deque(names), dict[str, ImageFacts | str]()

        def work(decoder: Decoder, after_each: Callable[[], None] = lambda: None) -> None:
            while waiting:
                try:
                    name = waiting.popleft()
                except IndexError:  # another was quicker
                    return
                try:
                    found.update(decoder.inspect(folder, [name], proven))
                except StorageError:
                    waiting.append(name)
                    raise
                after_each()

        helping = self._ask_helpers(work, len(names) // _PICTURES_EACH)
        try:
            # The kept process is asked by this thread alone: the kernel ends a child with the thread that started it.
            work(self._kept, on_picture)
        finally:
            waiting.clear()
            for each in helping:
                # A machine that has no room for a helper has no fault: what it leaves is done by the kept process.
                with suppress(StorageError):
                    each.result()
        on_picture()
        left = [name for name in names if name not in found]
        found.update(self._kept.inspect(folder, left, proven))
        return {name: found[name] for name in names}

    def close(self) -> None:
        """End all processes. The next picture would start another."""
        self._kept.close()
        for helper in self._helpers:
            helper.end()
        self._helpers.clear()

    def _ask_helpers(self, work: Work, wanted: int) -> Sequence[Future[None]]:
        """Let so many helpers work, as far as the machine allows: those that are still there, and new ones."""
        count = min(self._most - 1, wanted)
        asked: list[Future[None]] = []
        stayed, self._helpers = self._helpers, []
        for helper in stayed:
            done = helper.do(work) if len(asked) < count else None
            if done is not None:
                asked.append(done)
            if not helper.has_left:
                self._helpers.append(helper)
        while len(asked) < count:
            self._helpers.append(helper := _Helper(self._limits, self._idle_s))
            if (done := helper.do(work)) is not None:
                asked.append(done)
        return asked


class _Helper:
    """A thread with a decoding process of its own. Both end when they have had no work for a while."""

    def __init__(self, limits: Limits, idle_s: float) -> None:
        self._limits, self._idle_s = limits, idle_s
        self._asked: queue.Queue[tuple[Work, Future[None]] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._is_leaving = False
        self._thread = threading.Thread(target=self._serve, name="inspect", daemon=True)
        self._thread.start()

    @property
    def has_left(self) -> bool:
        """Has it ended because there was no work?"""
        return self._is_leaving

    def do(self, work: Work) -> Future[None] | None:
        """Do work with its process; None if it is ending."""
        done: Future[None] = Future()
        with self._lock:
            if self._is_leaving:
                return None
            self._asked.put((work, done))
        return done

    def end(self) -> None:
        """End thread and process, and wait until they have ended."""
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with closing(Decoder(self._limits)) as decoder:
            while (asked := self._next()) is not None:
                work, done = asked
                try:
                    work(decoder)
                except BaseException as error:  # noqa: BLE001 - whoever asked raises it
                    done.set_exception(error)
                else:
                    done.set_result(None)

    def _next(self) -> tuple[Work, Future[None]] | None:
        try:
            return self._asked.get(timeout=self._idle_s)
        except queue.Empty:
            with self._lock:
                self._is_leaving = self._asked.empty()
            return None if self._is_leaving else self._asked.get()


def affordable(limits: Limits) -> int:
    """Return how many decoding processes processors and memory of this machine allow at once: one at the least."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    by_memory = memory_bytes // (_MEMORY_SHARE * limits.decode_memory_bytes)
    return max(1, min(_MOST, len(os.sched_getaffinity(0)), by_memory))
