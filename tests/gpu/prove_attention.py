"""Our own attention kernel on a Hopper GPU: its errors against float64, and its time beside the other kernels'.

    python tests/gpu/prove_attention.py

Prints tables and ends with 1 where a bound is missed: errors at most half as large again as cuDNN's, the same bytes
every time and from a CUDA graph, and less time than any other kernel at the sizes of a look.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from fastfit_watch.engine.fused import hopper
from fastfit_watch.engine.fused.attention_backends import Kernel, Shape, _cudnn, time_kernels

MORE_ERROR = 1.5  # than cuDNN's
DEVICE = "cuda"


@dataclass(frozen=True)
class Case:
    """What is attended to. gain : of queries and keys, so of the square root of scores."""

    name: str
    rows: int
    heads: int
    queries: int
    keys: int
    gain: float = 1.0
    rises: bool = False
    shifted: bool = False


CASES = (
    Case("one tile", 1, 1, 192, 128),
    Case("odd sizes", 2, 3, 500, 1000),
    Case("one query", 1, 2, 1, 700),
    Case("one key", 1, 2, 70, 1),
    Case("many keys", 1, 8, 3072, 12345),
    Case("sharp", 1, 2, 768, 4000, gain=4.0),
    Case("very sharp", 1, 2, 768, 4000, gain=16.0),
    Case("ever larger scores", 1, 2, 768, 4000, gain=6.0, rises=True),
    Case("not aligned", 1, 2, 300, 600, shifted=True),
)


def draw(case: Case, head_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, laid out as the engine's buffers."""
    random = torch.Generator(DEVICE).manual_seed(1)
    drawn = []
    for count, gain in ((case.queries, case.gain), (case.keys, case.gain), (case.keys, 1.0)):
        size = (case.rows, count, case.heads, head_size + case.shifted)
        numbers = torch.randn(size, generator=random, device=DEVICE).mul(gain)
        drawn.append(numbers.to(torch.bfloat16)[..., int(case.shifted) :].transpose(1, 2))
    if case.rises:
        drawn[1] = drawn[1] * torch.linspace(0, 1, case.keys, device=DEVICE, dtype=torch.bfloat16)[:, None]
    return drawn[0], drawn[1], drawn[2]


def error(mixed: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> float:
    """Relative error against float64, in the mean of squares."""
    scores = query.double() @ keys.double().transpose(-1, -2) * query.shape[-1] ** -0.5
    wanted = torch.softmax(scores, -1) @ values.double()
    return float((mixed.double() - wanted).norm() / wanted.norm())


def prove_errors() -> bool:
    """Print the table of errors; are all within bounds?"""
    fine = True
    print(f"{'case':22s} {'head':>4s} {'ours':>9s} {'cuDNN':>9s}")
    for head_size in hopper.HEAD_SIZES:
        for case in CASES:
            query, keys, values = given = draw(case, head_size)
            ours = error(hopper.attend(*given), *given)
            baseline = error(_cudnn(query.contiguous(), keys.contiguous(), values.contiguous(), None), *given)
            good = ours <= MORE_ERROR * baseline
            fine &= good
            print(f"{case.name:22s} {head_size:4d} {ours:9.2e} {baseline:9.2e}{'' if good else '  TOO LARGE'}")
    return fine


def prove_sameness() -> bool:
    """Same bytes every time, and from a recording?"""
    given = draw(CASES[4], hopper.HEAD_SIZES[0])
    first = hopper.attend(*given)
    again = [hopper.attend(*given) for _ in range(5)]
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.graph(graph, stream=stream):
        recorded = hopper.attend(*given)
    graph.replay()
    torch.cuda.synchronize()
    same = all(torch.equal(first, other) for other in (*again, recorded))
    print(f"same bytes in {len(again)} calls and from a CUDA graph: {'yes' if same else 'NO'}")
    return same


def prove_speed() -> bool:
    """Print the times of all kernels at the sizes of a full outfit; is ours the quickest?"""
    fine = True
    device, dtype = torch.device(DEVICE, 0), torch.bfloat16
    sizes = (
        ("both halves", Shape(40, 12288), 16, 43008),
        ("one half", Shape(40, 12288), 8, 43008),
        ("merged tokens", Shape(48, 12288), 8, 12544),
    )
    for name, shape, heads, keys in sizes:
        seconds = time_kernels(shape, heads, keys, device, dtype)
        fine &= min(seconds, key=lambda kernel: seconds[kernel]) is Kernel.HOPPER
        times = ", ".join(f"{kernel.value} {1000 * seconds[kernel]:.3f}" for kernel in seconds)
        print(f"{name}: {heads} heads of {shape.head_size}, {shape.queries} queries, {keys} keys; ms: {times}")
    return fine


def main() -> int:
    """Run all."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, kernel {hopper.source_digest()}")
    good = [prove() for prove in (prove_errors, prove_sameness, prove_speed)]
    print("ALL BOUNDS MET" if all(good) else "BOUNDS MISSED")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
