"""Which attention kernel is fastest here: measured once for each head size and length, remembered beside the weights.

The order of preference is fixed and another kernel must win clearly, so that the same machine chooses the same kernel
again and the same seed gives the same bytes. Kernels are called directly, not through PyTorch's switches: those belong
to the whole process, and two threads run here.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from fastfit_watch.engine.fused import hopper

Run = Callable[[Tensor, Tensor, Tensor, float | None], Tensor]

_CLEARLY = 0.93  # another kernel must take less than this share of the preferred one's time
_REPEATS = 5
_CHECKED = 320  # tokens
_TOLERANCE = 0.02  # of numbers up to about 1
_REFUSALS = (RuntimeError, TypeError, ImportError, OSError)  # the last two: a library is missing


class Kernel(StrEnum):
    """Attention kernels, the preferred ones first. `hopper` is our own; `default` leaves the choice to PyTorch."""

    HOPPER = "hopper"
    CUDNN = "cudnn"
    FLASH = "flash"
    EFFICIENT = "efficient"
    PRODUCT = "product"
    DEFAULT = "default"


@dataclass(frozen=True)
class Shape:
    """What a choice depends on: the size of a head and the number of queries of one head."""

    head_size: int
    queries: int


class Attention:
    """Chooses and runs attention kernels. Read by all threads; changed only by `learn`, before they start."""

    def __init__(self) -> None:
        self._choices: dict[Shape, Kernel] = {}

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor, scale: float | None = None) -> Tensor:
        """Softmax attention for (B, heads, tokens, head size); keys and values may be longer than the queries.

        scale : of the scores; None is 1 / sqrt(head size).
        """
        return _RUN[self.kernel_for(query)](query, keys, values, scale)

    def kernel_for(self, query: Tensor) -> Kernel:
        """The kernel measured for this head size at the nearest length; PyTorch's own choice where none was."""
        near = [shape for shape in self._choices if shape.head_size == query.shape[-1]]
        if not near or not query.is_cuda:
            return Kernel.DEFAULT
        return self._choices[min(near, key=lambda shape: abs(math.log(shape.queries / query.shape[-2])))]

    @property
    def choices(self) -> Mapping[Shape, Kernel]:
        """What was measured, for reports."""
        return self._choices

    def learn(
        self, wanted: Iterable[tuple[Shape, int, int]], device: torch.device, dtype: torch.dtype, memory: Path | None
    ) -> None:
        """Choose for each (shape, rows times heads, keys for each query), from `memory` where it was measured before.

        memory : a JSON file; None measures every time. It is keyed by card, dtype and the versions of libraries and of
            our own kernel. What no longer runs here is measured anew.
        """
        if device.type != "cuda":
            return
        key = f"{torch.cuda.get_device_name(device)} {dtype} torch {torch.__version__}"
        key += f" cuDNN {torch.backends.cudnn.version()} hopper {hopper.source_digest()}"  # type: ignore[no-untyped-call]
        known = _read(memory).get(key, {})
        for shape, heads, ratio in wanted:
            name = f"{shape.head_size}x{shape.queries}"
            if known.get(name) not in list(Kernel) or not _runs(Kernel(known[name]), shape, device, dtype):
                seconds = time_kernels(shape, heads, ratio * shape.queries, device, dtype)
                known[name] = _preferred(seconds).value
            self._choices[shape] = Kernel(known[name])
        if memory is not None:
            _write(memory, {**_read(memory), key: known})


def time_kernels(shape: Shape, heads: int, keys: int, device: torch.device, dtype: torch.dtype) -> dict[Kernel, float]:
    """Median seconds of every kernel that takes this shape; one that refuses, or is wrong, is left out."""
    query, key, value = _draw(shape.head_size, heads, shape.queries, keys, device, dtype)
    seconds: dict[Kernel, float] = {}
    for kernel, run in _RUN.items():
        if kernel is Kernel.PRODUCT and heads * shape.queries * keys > _LARGEST_PRODUCT:
            continue
        try:
            if _is_right(run, query, key, value):
                seconds[kernel] = _time(run, query, key, value)
        except _REFUSALS:
            continue
    return seconds


def _draw(
    head_size: int, heads: int, queries: int, keys: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers to try kernels with, laid out as projections give them."""
    random = torch.Generator(device).manual_seed(0)
    return tuple(  # type: ignore[return-value]
        torch.randn((1, count, heads, head_size), generator=random, device=device, dtype=dtype).transpose(1, 2)
        for count in (queries, keys, keys)
    )


def _runs(kernel: Kernel, shape: Shape, device: torch.device, dtype: torch.dtype) -> bool:
    """Does a kernel that was chosen earlier still run here, and give the right results?"""
    try:
        return _is_right(_RUN[kernel], *_draw(shape.head_size, 1, _CHECKED, _CHECKED, device, dtype))
    except _REFUSALS:
        return False


def _is_right(run: Run, query: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Does it give what the plain formula gives? Called directly, cuDNN takes types that it cannot compute with."""
    query, keys, values = (tensor[:, :, :_CHECKED] for tensor in (query, keys, values))
    plain = functional.scaled_dot_product_attention(query.cpu().float(), keys.cpu().float(), values.cpu().float())
    return torch.allclose(run(query, keys, values, None).cpu().float(), plain, rtol=0, atol=_TOLERANCE)


def _time(run: Run, query: Tensor, keys: Tensor, values: Tensor) -> float:
    for _ in range(2):
        run(query, keys, values, None)
    times: list[float] = []
    for _ in range(_REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        run(query, keys, values, None)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return sorted(times)[_REPEATS // 2]


def _preferred(seconds: Mapping[Kernel, float]) -> Kernel:
    """The first in the fixed order that no other beats clearly."""
    if not seconds:
        return Kernel.DEFAULT
    best = min(seconds.values())
    return next(kernel for kernel in Kernel if kernel in seconds and best > _CLEARLY * seconds[kernel])


# A product with all weights in memory beats the kernels only for one head of many channels: the VAE's.
_LARGEST_PRODUCT = 2**29
_PRODUCT_SCORES = 2**26  # held at once: 256 MB of float32


def _cudnn(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    mixed: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(query, keys, values, None, False, scale=scale)[0]
    return mixed


def _flash(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    mixed: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, keys, values, scale=scale)[0]
    return mixed


def _efficient(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    mixed: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, keys, values, None, False, scale=scale
    )[0]
    return mixed


def _product(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    """Both products as plain matrix products, the softmax between them in float32; some queries at a time."""
    batch, heads, queries, size = query.shape
    query, keys, values = (tensor.reshape(batch * heads, -1, size) for tensor in (query, keys, values))
    keys = keys.transpose(1, 2)
    scale = 1 / math.sqrt(size) if scale is None else scale
    mixed = []
    for part in torch.split(query, max(1, _PRODUCT_SCORES // (len(query) * keys.shape[2])), dim=1):
        scores = torch.bmm(part, keys, out_dtype=torch.float32).mul_(scale)
        mixed.append(torch.bmm(torch.softmax(scores, -1).to(values.dtype), values))
    return torch.cat(mixed, dim=1).view(batch, heads, queries, size)


def _default(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    return functional.scaled_dot_product_attention(query, keys, values, scale=scale)


_RUN: Mapping[Kernel, Run] = {
    Kernel.HOPPER: hopper.attend,
    Kernel.CUDNN: _cudnn,
    Kernel.FLASH: _flash,
    Kernel.EFFICIENT: _efficient,
    Kernel.PRODUCT: _product,
    Kernel.DEFAULT: _default,
}


def _read(memory: Path | None) -> dict[str, dict[str, str]]:
    """What was measured before. A file that cannot be used is measured anew."""
    try:
        content = json.loads(memory.read_text(encoding="utf-8")) if memory else {}
    except (OSError, ValueError):
        return {}
    return {key: dict(value) for key, value in content.items()} if isinstance(content, dict) else {}


def _write(memory: Path, content: Mapping[str, Mapping[str, str]]) -> None:
    """Keep the measurements; where nothing can be written, the next start measures again."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False, encoding="utf-8") as file:
            json.dump(content, file, indent=2)
        Path(file.name).replace(memory)
    except OSError:
        return
