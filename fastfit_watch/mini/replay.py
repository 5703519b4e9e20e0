"""Loss and gradients of one training step: on CUDA recorded once for each kind of batch, then replayed.

The networks are so small that launching their kernels takes longer than running them; a CUDA graph launches them all
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

LossOf = Callable[[nn.Module, Hashable, dict[str, Tensor]], Tensor]
_WARM_UPS = 3  # eager steps before recording: cuDNN chooses its algorithms in them


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    loss: Tensor


class Gradients:
    """Calls `loss_of(network, kind, batch)` and leaves the gradients in the parameters.

    Batches of one kind (any hashable value) have the same fields, shapes and dtypes. `loss_of` must not look at values
    on the host, since on CUDA it runs only while it is recorded.
    """

    def __init__(self, network: nn.Module, loss_of: LossOf) -> None:
        self._network, self._loss_of = network, loss_of
        self._parameters = [each for each in network.parameters() if each.requires_grad]
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._gradients = [each.grad for each in self._parameters if each.grad is not None]
        self._recordings: dict[Hashable, _Recording] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._parameters[0].is_cuda else None

    def __call__(self, kind: Hashable, batch: dict[str, Tensor]) -> Tensor:
        """Returns the loss, a scalar that the next call overwrites."""
        if self._pool is None:
            return self._step(kind, batch)
        if kind not in self._recordings:
            self._recordings[kind] = self._record(kind, batch)
        recording = self._recordings[kind]
        torch._foreach_copy_(list(recording.inputs.values()), [batch[name] for name in recording.inputs])
        recording.graph.replay()
        return recording.loss

    def _step(self, kind: Hashable, batch: dict[str, Tensor]) -> Tensor:
        torch._foreach_zero_(self._gradients)
        loss = self._loss_of(self._network, kind, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _record(self, kind: Hashable, batch: dict[str, Tensor]) -> _Recording:
        inputs = {name: value.clone() for name, value in batch.items()}
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._step(kind, inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Recordings share one memory pool: they never run at the same time, and nothing of one outlives its step.
        with torch.cuda.graph(graph, pool=self._pool):
            loss = self._step(kind, inputs)
        return _Recording(graph, inputs, loss)


def normalise_in_half(network: nn.Module) -> None:
    """Let group and layer norms work in the type they are given, where autocast would have them read and write float32.

    Their sums stay float32 inside PyTorch's kernels; half of the memory traffic falls away.
    """
    for module in network.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.forward = partial(_normalise, module)  # type: ignore[method-assign]


def _normalise(module: nn.GroupNorm | nn.LayerNorm, hidden: Tensor) -> Tensor:
    with torch.autocast(hidden.device.type, enabled=False):
        weight, bias = module.weight.to(hidden.dtype), module.bias.to(hidden.dtype)
        if isinstance(module, nn.GroupNorm):
            return functional.group_norm(hidden, module.num_groups, weight, bias, module.eps)
        return functional.layer_norm(hidden, module.normalized_shape, weight, bias, module.eps)
