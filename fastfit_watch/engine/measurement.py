"""What a look costs: seconds by stage and device memory; and what it means when that memory runs out."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastfit_watch.domain.errors import OutOfMemory
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.system.failpoints import failpoint

# How CUDA's libraries say it in errors of their own, where torch's allocator was not asked.
_FULL_DEVICE = ("out of memory", "alloc_failed", "can't allocate memory", "failed to allocate memory")


class StageClock:
    """Wall seconds by stage. A GPU works behind our back, so each stage ends by waiting for it, and only there."""

    def __init__(self, device: str, rung: Rung = Rung.FULL) -> None:
        self._device = torch.device(device)
        self._rung = rung
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the enclosed work. A stage that fails is not recorded. Raises OutOfMemory naming it."""
        started_s = time.perf_counter()
        with memory_errors(str(self._device), name):
            simulate_shortage(self._rung, name)
            yield
            if self._device.type == "cuda":
                # This thread's own work only: another look is on the device at the same time.
                torch.cuda.current_stream(self._device).synchronize()
        self.seconds[name] = time.perf_counter() - started_s


class PeakMemory:
    """Most memory in use on a GPU between construction and `read`."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def read(self) -> int | None:
        """Bytes; None on the CPU."""
        return peak_memory(str(self._device))


def peak_memory(device: str) -> int | None:
    """Most memory in use on a GPU since a look was last begun on it, in bytes; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else None


def usable_bytes(device: torch.device) -> int:
    """What torch may use of a GPU's memory (see `memory.limit_memory`); 0 on the CPU."""
    if device.type != "cuda":
        return 0
    share = torch.cuda.get_per_process_memory_fraction(device)
    return int(share * torch.cuda.get_device_properties(device).total_memory)


@contextmanager
def memory_errors(device: str, stage: str) -> Iterator[None]:
    """Turn every way in which a full device shows itself into `OutOfMemory`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"The device {device} ran out of memory in the stage '{stage}'.",
            hint="Free memory on it, or let fastfit-watch use less: see 'memory' in configs/default.yaml.",
            stage=stage,
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Does this exception mean a full device or machine? CUDA's libraries say so in RuntimeErrors of their own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in said for phrase in _FULL_DEVICE)


def simulate_shortage(rung: Rung, stage: str) -> None:
    """Raise torch's own out-of-memory error where a test asks for it: `memory.full.decode:1:ENOMEM`.

    A device that is full on this rung is full at every later visit, too, so the failpoint may stay set.
    """
    try:
        failpoint(f"memory.{rung}.{stage}")
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise torch.OutOfMemoryError(f"simulated on rung {rung} in stage {stage}") from error
