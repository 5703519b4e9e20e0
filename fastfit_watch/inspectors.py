"""Many pictures at once: a large upload is looked at by several decoding processes, so that its looks begin sooner."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from fastfit_watch.errors import StorageError
from fastfit_watch.images import ImageFacts
from fastfit_watch.inspector import Inspector
from fastfit_watch.limits import Limits

_MOST = 4
_WORTH_A_PROCESS = 8  # pictures: starting one takes as long as decoding some
_MEMORY_SHARE = 4  # of the machine's memory, what all of them together may use at the most


class Inspectors:
    """Does what `Inspector` does, with helpers for uploads of many pictures. For one thread at a time.

    One decoding process is kept between uploads; the helpers live as long as one call, since most uploads are small.
    """

    def __init__(self, limits: Limits, most: int | None = None) -> None:
        """most: processes at once; None lets the machine's processors and memory decide."""
        self._limits = limits
        self._most = affordable(limits) if most is None else most
        self._kept = Inspector(limits)

    def inspect(
        self, folder: Path, names: Sequence[str], on_picture: Callable[[], None] = lambda: None
    ) -> Mapping[str, ImageFacts | str]:
        """See `Inspector.inspect`. on_picture is called again and again while there is progress."""
        waiting, found = deque(names), dict[str, ImageFacts | str]()

        def work(inspector: Inspector, after_each: Callable[[], None]) -> None:
            while waiting:
                try:
                    name = waiting.popleft()
                except IndexError:  # another was quicker
                    return
                try:
                    found.update(inspector.inspect(folder, [name]))
                except StorageError:
                    waiting.append(name)
                    raise
                after_each()

        def help_out() -> None:
            # A machine that has no room for a helper has no fault: what it leaves is done by the kept process.
            with closing(Inspector(self._limits)) as helper, suppress(StorageError):
                work(helper, lambda: None)

        helpers = min(self._most - 1, len(names) // _WORTH_A_PROCESS)
        # The kept process is asked by this thread alone: the kernel ends a child with the thread that started it.
        with ThreadPoolExecutor(max(1, helpers), "inspect") as threads:
            helping = [threads.submit(help_out) for _ in range(helpers)]
            try:
                work(self._kept, on_picture)
            except BaseException:
                waiting.clear()
                raise
            for each in helping:
                each.result()
                on_picture()
            work(self._kept, on_picture)
        return {name: found[name] for name in names}

    def close(self) -> None:
        """End the process that is kept. The next picture would start another."""
        self._kept.close()


def affordable(limits: Limits) -> int:
    """How many decoding processes this machine can bear at once: one at the least."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    by_memory = memory_bytes // (_MEMORY_SHARE * limits.decode_memory_bytes)
    return max(1, min(_MOST, len(os.sched_getaffinity(0)), by_memory))
