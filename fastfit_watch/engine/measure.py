"""What a look costs: seconds by stage and device memory; and what it means when that memory runs out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastfit_watch.errors import OutOfMemory


class StageClock:
    """Wall seconds by stage. A GPU works behind our back, so each stage ends by waiting for it, and only there."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the enclosed work. A stage that fails is not recorded."""
        started_s = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] = time.perf_counter() - started_s


class PeakMemory:
    """Most memory in use on a GPU between construction and `read`."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def read(self) -> int | None:
        """Bytes; None on the CPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None


@contextmanager
def memory_errors(device: str, doing: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into `OutOfMemory`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"The device {device} ran out of memory while {doing}.",
            hint="Free memory on it, or use a smaller size.",
        ) from error
