"""CUDA graphs: work recorded once for each shape of its inputs, then launched at once.

A network of many small kernels keeps the processor busier with launching than the GPU with running. The kernels of a
recording are those that ran before it, so the numbers are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Taken = TypeVar("Taken")

_PLAIN_CALLS = 1  # of each shape, before it is recorded: they load kernels and choose algorithms


def may_capture(device: torch.device) -> bool:
    """Only streams of one's own are recorded. A refused capture would leave torch's random numbers unusable."""
    return torch.cuda.current_stream(device) != torch.cuda.default_stream(device)


def capture(pool: Any, work: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
    """Record the calling thread's work on its stream; None where the device or a library refuses. Nothing runs.

    Graphs that share a `pool` must never run at the same time, and leave nothing in it between runs.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads go on with their own work meanwhile.
    try:
        graph.capture_begin(pool, capture_error_mode="thread_local")
        work()
    except RuntimeError:
        _end(graph)
        return None
    return graph if _end(graph) else None


def _end(graph: torch.cuda.CUDAGraph) -> bool:
    """End a capture; False if nothing usable came of it."""
    try:
        graph.capture_end()
    except RuntimeError:
        return False
    return True


@dataclass(frozen=True)
class _Recording:
    """graph : None if the work cannot be recorded. outputs : where a replay leaves its results."""

    graph: torch.cuda.CUDAGraph | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Recorder:
    """Runs `work(*inputs)`, which returns tensors, on a GPU; from the second call of each shape on as a CUDA graph.

    Threads take turns. records : may be turned off where memory is scarce, since a recording keeps what it works with.
    """

    def __init__(self, work: Callable[..., Sequence[Tensor]], *, records: bool = True) -> None:
        self._work, self._records = work, records
        self._turn = threading.Lock()
        self._calls: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, _Recording] = {}
        self._pool: Any = None

    @property
    def kept_bytes(self) -> int:
        """What recordings hold at least: their inputs and outputs."""
        return sum(each.nbytes for one in self._recordings.values() for each in (*one.inputs, *one.outputs))

    def drop_caches(self) -> None:
        """Give all memory back; every shape is recorded anew."""
        with self._turn:
            self._recordings.clear()
            self._calls.clear()
            self._pool = None

    def __call__(self, take: Callable[[Sequence[Tensor]], Taken], *inputs: Tensor) -> Taken:
        """Do the work, and return what `take` makes of its outputs, which are overwritten next time: it must copy."""
        if not (self._records and inputs[0].is_cuda):
            return take(self._work(*inputs))
        with self._turn:
            return take(self._run(inputs))

    def _run(self, inputs: tuple[Tensor, ...]) -> Sequence[Tensor]:
        key = tuple((tuple(each.shape), each.dtype) for each in inputs)
        recording = self._recordings.get(key)
        if recording is None and self._calls.setdefault(key, 0) >= _PLAIN_CALLS and may_capture(inputs[0].device):
            recording = self._recordings[key] = self._record(inputs)
        if recording is None or recording.graph is None:
            self._calls[key] = self._calls.get(key, 0) + 1
            return self._work(*inputs)
        for place, given in zip(recording.inputs, inputs, strict=True):
            place.copy_(given)
        recording.graph.replay()
        return recording.outputs

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        paths = tuple(torch.empty_like(each).copy_(each) for each in inputs)
        outputs: list[Tensor] = []
        graph = capture(self._pool, lambda: outputs.extend(self._work(*paths)))
        return _Recording(graph, paths, tuple(outputs))
