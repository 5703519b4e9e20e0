"""Training steps that are recorded once and replayed: the GPU then no longer waits for Python.

One step of the UNet is thousands of launches, which take a slow host longer than the work itself takes an H200. A CUDA
graph is launched as a whole (PyTorch documentation, "CUDA graphs").
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

Variant = Hashable


class RecordedSteps:
    """Call it with a variant to take one step of it; on the CPU every step is simply taken.

    take_step must find all that changes in tensors which stay where they are, must not wait for the device, and must do
    the same work whenever it is given the same variant. It returns its loss, a scalar.
    """

    def __init__(self, take_step: Callable[[Variant], Tensor], device: str) -> None:
        self._take_step, self._records = take_step, device.startswith("cuda")
        self._graphs: dict[Variant, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._records else None

    def __call__(self, variant: Variant) -> Tensor:
        """Take one step. The loss holds until the next call."""
        if not self._records:
            return self._take_step(variant)
        if variant not in self._graphs:
            return self._record(variant)
        graph, loss = self._graphs[variant]
        graph.replay()
        return loss

    def _record(self, variant: Variant) -> Tensor:
        """Take a step as usual, where libraries choose their algorithms and optimisers make room; then record one."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            first = self._take_step(variant).detach().clone()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Steps follow one another, so that all may work in the same memory.
        with torch.cuda.graph(graph, pool=self._pool):
            loss = self._take_step(variant).detach()
        self._graphs[variant] = graph, loss
        return first
