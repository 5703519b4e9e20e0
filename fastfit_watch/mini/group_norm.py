"""Group norm and SiLU for training on a GPU, with their gradients, written in Triton. Imported on a CUDA device only.

PyTorch's own group norm gives up the channels-last layout that convolutions want, so that a network of narrow layers
spends most of a step on copies. Statistics and sums are float32. The gradient follows from Wu and He 2018, equation 2.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _MOST_CHANNELS = 64, 64
_MOST_CHUNKS = 32


def group_norm(pictures: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, *, silu: bool) -> Tensor:
    """Normalise (B, C, H, W), channels last, and apply SiLU where wanted; pictures, weight and bias get gradients."""
    result: Tensor = _GroupNorm.apply(pictures, weight, bias, groups, eps, silu)  # type: ignore[no-untyped-call]
    return result


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pictures: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = pictures.shape
        count = height * width
        chunks = min(_MOST_CHUNKS, triton.cdiv(count, _ROWS))
        rows = triton.cdiv(triton.cdiv(count, chunks), _ROWS) * _ROWS
        width = min(_MOST_CHANNELS, triton.next_power_of_2(channels))
        blocks = triton.cdiv(channels, width)
        partial = torch.empty((2, batch, chunks, channels), device=pictures.device, dtype=torch.float32)
        moments = torch.empty((2, batch, groups), device=pictures.device, dtype=torch.float32)
        change = torch.empty((2, batch, channels), device=pictures.device, dtype=torch.float32)
        result = torch.empty_like(pictures)
        _sums[(chunks, blocks, batch)](
            pictures, pictures, change[0], change[1], partial[0], partial[1], count, channels, rows, chunks,
            False, False, _ROWS, width,
        )  # fmt: skip
        sizes = triton.next_power_of_2(chunks), triton.next_power_of_2(channels // groups)
        _finish[(groups, batch)](
            partial[0], partial[1], weight, bias, moments[0], moments[1], change[0], change[1], count, channels, chunks,
            channels // groups, eps, *sizes,
        )  # fmt: skip
        _apply[(triton.cdiv(count, _ROWS), blocks, batch)](
            pictures, pictures, change[0], change[1], change[0], change[1], result, count, channels,
            silu, False, _ROWS, width,
        )  # fmt: skip
        ctx.save_for_backward(pictures, weight, moments, change)
        ctx.silu = silu
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pictures, weight, moments, change = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = pictures.shape
        groups, count = moments.shape[-1], height * width
        chunks = min(_MOST_CHUNKS, triton.cdiv(count, _ROWS))
        rows = triton.cdiv(triton.cdiv(count, chunks), _ROWS) * _ROWS
        width = min(_MOST_CHANNELS, triton.next_power_of_2(channels))
        blocks = triton.cdiv(channels, width)
        partial = torch.empty((2, batch, chunks, channels), device=pictures.device, dtype=torch.float32)
        sums = torch.empty((4, batch, channels), device=pictures.device, dtype=torch.float32)
        result = torch.empty_like(pictures)
        _sums[(chunks, blocks, batch)](
            pictures, gradient, change[0], change[1], partial[0], partial[1], count, channels, rows, chunks,
            True, ctx.silu, _ROWS, width,
        )  # fmt: skip
        sizes = triton.next_power_of_2(chunks), triton.next_power_of_2(channels // groups)
        _finish_gradient[(groups, batch)](
            partial[0], partial[1], weight, moments[0], moments[1], sums[0], sums[1], sums[2], sums[3], count, channels,
            chunks, channels // groups, *sizes,
        )  # fmt: skip
        _apply[(triton.cdiv(count, _ROWS), blocks, batch)](
            pictures, gradient, change[0], change[1], sums[0], sums[1], result, count, channels,
            ctx.silu, True, _ROWS, width,
        )  # fmt: skip
        return result, sums[2].sum(0).to(weight.dtype), sums[3].sum(0).to(weight.dtype), None, None, None


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton has no types
def _through_silu(value, gradient):  # type: ignore[no-untyped-def]
    """Gradient before SiLU, of the gradient after it."""
    gate = 1.0 / (1.0 + tl.exp(-value))
    return gradient * gate * (1.0 + value * (1.0 - gate))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _sums(  # type: ignore[no-untyped-def]
    rows, gradient, scale, shift, first, second, count, channels, chunk_rows, chunks,
    GRADIENT: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Sums of each channel over a chunk of rows: of values and squares, or of gradients and gradients times values."""
    chunk, batch = tl.program_id(0), tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    base = batch * count * channels
    total = tl.zeros((CHANNELS,), tl.float32)
    product = tl.zeros((CHANNELS,), tl.float32)
    factor = tl.zeros((CHANNELS,), tl.float32)
    addend = tl.zeros((CHANNELS,), tl.float32)
    if SILU:
        factor = tl.load(scale + batch * channels + channel, mask=inside, other=0.0)
        addend = tl.load(shift + batch * channels + channel, mask=inside, other=0.0)
    start = chunk * chunk_rows
    for offset in range(0, chunk_rows, ROWS):
        row = start + offset + tl.arange(0, ROWS)
        mask = (row < count)[:, None] & inside[None, :]
        place = base + row[:, None].to(tl.int64) * channels + channel[None, :]
        value = tl.load(rows + place, mask=mask, other=0.0).to(tl.float32)
        if GRADIENT:
            change = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
            if SILU:
                change = _through_silu(value * factor[None, :] + addend[None, :], change)
            total += tl.sum(change, 0)
            product += tl.sum(change * value, 0)
        else:
            total += tl.sum(value, 0)
            product += tl.sum(value * value, 0)
    place = (batch * chunks + chunk) * channels + channel
    tl.store(first + place, total, mask=inside)
    tl.store(second + place, product, mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _finish(  # type: ignore[no-untyped-def]
    first, second, weight, bias, means, deviations, scale, shift, count, channels, chunks, width, eps,
    CHUNKS: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Mean and inverse deviation of one group, and a factor and an addend for each of its channels."""
    group, batch = tl.program_id(0), tl.program_id(1)
    chunk, position = tl.arange(0, CHUNKS), tl.arange(0, WIDTH)
    channel = group * width + position
    inside = position < width
    mask = (chunk < chunks)[:, None] & inside[None, :]
    place = (batch * chunks + chunk[:, None]) * channels + channel[None, :]
    size = count * 1.0 * width
    mean = tl.sum(tl.sum(tl.load(first + place, mask=mask, other=0.0), 0), 0) / size
    square = tl.sum(tl.sum(tl.load(second + place, mask=mask, other=0.0), 0), 0) / size
    inverse = 1.0 / tl.sqrt(tl.maximum(square - mean * mean, 0.0) + eps)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) * inverse
    addend = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) - mean * factor
    groups = tl.num_programs(0)
    tl.store(means + batch * groups + group, mean)
    tl.store(deviations + batch * groups + group, inverse)
    tl.store(scale + batch * channels + channel, factor, mask=inside)
    tl.store(shift + batch * channels + channel, addend, mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _finish_gradient(  # type: ignore[no-untyped-def]
    first, second, weight, means, deviations, slope, addend, weights, biases, count, channels, chunks, width,
    CHUNKS: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """How a group's statistics answer: a factor of the values and an addend; gradients of weight and bias by sample."""
    group, batch = tl.program_id(0), tl.program_id(1)
    chunk, position = tl.arange(0, CHUNKS), tl.arange(0, WIDTH)
    channel = group * width + position
    inside = position < width
    mask = (chunk < chunks)[:, None] & inside[None, :]
    place = (batch * chunks + chunk[:, None]) * channels + channel[None, :]
    groups = tl.num_programs(0)
    mean = tl.load(means + batch * groups + group)
    inverse = tl.load(deviations + batch * groups + group)
    total = tl.sum(tl.load(first + place, mask=mask, other=0.0), 0)
    product = inverse * (tl.sum(tl.load(second + place, mask=mask, other=0.0), 0) - mean * total)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    size = count * 1.0 * width
    along = tl.sum(factor * product, 0) / size
    common = tl.sum(factor * total, 0) / size
    slope_value = -inverse * inverse * along
    addend_value = -inverse * common - mean * slope_value
    place = batch * channels + channel
    tl.store(slope + place, slope_value + tl.zeros((WIDTH,), tl.float32), mask=inside)
    tl.store(addend + place, addend_value + tl.zeros((WIDTH,), tl.float32), mask=inside)
    tl.store(weights + place, product, mask=inside)
    tl.store(biases + place, total, mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _apply(  # type: ignore[no-untyped-def]
    rows, gradient, scale, shift, slope, answer, result, count, channels,
    SILU: tl.constexpr, GRADIENT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """The normalised values, or the gradient of what was normalised."""
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    mask = (row < count)[:, None] & inside[None, :]
    place = batch * count * channels + row[:, None].to(tl.int64) * channels + channel[None, :]
    factor = tl.load(scale + batch * channels + channel, mask=inside, other=0.0)[None, :]
    addend = tl.load(shift + batch * channels + channel, mask=inside, other=0.0)[None, :]
    value = tl.load(rows + place, mask=mask, other=0.0).to(tl.float32)
    normal = value * factor + addend
    if GRADIENT:
        change = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
        if SILU:
            change = _through_silu(normal, change)
        by_value = tl.load(slope + batch * channels + channel, mask=inside, other=0.0)[None, :]
        by_mean = tl.load(answer + batch * channels + channel, mask=inside, other=0.0)[None, :]
        outcome = change * factor + value * by_value + by_mean
    else:
        outcome = normal
        if SILU:
            outcome = normal / (1.0 + tl.exp(-normal))
    tl.store(result + place, outcome.to(result.dtype.element_ty), mask=mask)
