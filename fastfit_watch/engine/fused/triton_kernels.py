"""Small GPU kernels over pictures laid out (B, rows, channels), written in Triton. Imported on a CUDA device only.

Between convolutions and attention a network of this kind mostly reads and writes memory. These kernels read and write
it once where separate operations would do so two to four times, and they keep the channels-last layout that
convolutions on a GPU want, which PyTorch's own group norm gives up.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_CHANNEL_BLOCK = 64
_ROW_BLOCK = 64
_STATISTICS_PROGRAMS = 2048  # enough to fill any card several times over
_FINISH_ELEMENTS = 8192  # the largest tile of the kernel that finishes statistics
_GATE_ROWS, _GATE_BLOCK = 8, 256
_NORM_ELEMENTS = 2048  # of a layer norm's tile


def group_norm(
    rows: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, offset: Tensor | None, silu: bool
) -> Tensor:
    """Normalise (B, N, C), contiguous; see `kernels.group_norm`. Statistics are float32 (Chan et al. 1979)."""
    batch, count, channels = rows.shape
    width = channels // groups
    block = _group_norm_rows(count)
    blocks = triton.cdiv(channels, _CHANNEL_BLOCK)
    most = min(_FINISH_ELEMENTS // triton.next_power_of_2(width), triton.cdiv(count, block))
    chunks = max(1, min(most, _STATISTICS_PROGRAMS // (batch * blocks)))
    chunk_rows = triton.cdiv(triton.cdiv(count, chunks), block) * block
    chunks = triton.cdiv(count, chunk_rows)
    partial = torch.empty((2, batch, chunks, channels), device=rows.device, dtype=torch.float32)
    _statistics[(chunks, blocks, batch)](
        rows, partial[0], partial[1], count, channels, chunk_rows, chunks, block, _CHANNEL_BLOCK
    )
    change = torch.empty((2, batch, channels), device=rows.device, dtype=torch.float32)
    shared_offset = offset is not None and offset.shape[0] == 1
    _finish[(groups, batch)](
        partial[0],
        partial[1],
        weight,
        bias,
        rows if offset is None else offset,
        change[0],
        change[1],
        count,
        channels,
        width,
        chunk_rows,
        chunks,
        0 if offset is None or shared_offset else offset.stride(0),
        eps,
        offset is not None,
        triton.next_power_of_2(chunks),
        triton.next_power_of_2(width),
    )
    result = torch.empty_like(rows)
    _apply[(triton.cdiv(count, block), blocks, batch)](
        rows, change[0], change[1], result, count, channels, silu, block, _CHANNEL_BLOCK
    )
    return result


def _group_norm_rows(count: int) -> int:
    """Rows of a tile: many where there are many, so that enough reads are under way; measured on an H200."""
    return 128 if count >= 4 * _STATISTICS_PROGRAMS else 64 if count > 256 else 32


def layer_norm(
    rows: Tensor, residual: Tensor | None, added: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Sum of rows, residual and added bias, and its layer norm; (B, N, C), contiguous. See `kernels.add_norm`."""
    channels = rows.shape[-1]
    count = rows.numel() // channels
    width = triton.next_power_of_2(channels)
    tile = max(1, _NORM_ELEMENTS // width)
    normal = torch.empty_like(rows)
    total = rows if residual is None else torch.empty_like(rows)
    _layer_norm[(triton.cdiv(count, tile),)](
        rows,
        rows if residual is None else residual,
        weight if added is None else added,
        weight,
        bias,
        total,
        normal,
        count,
        channels,
        eps,
        residual is not None,
        tile,
        width,
    )
    return total, normal


def add(rows: Tensor, residual: Tensor, bias: Tensor) -> Tensor:
    """rows + residual + bias for (B, N, C), contiguous."""
    channels = rows.shape[-1]
    count = rows.numel() // channels
    result = torch.empty_like(rows)
    grid = (triton.cdiv(count, _ROW_BLOCK), triton.cdiv(channels, _CHANNEL_BLOCK))
    _add[grid](rows, residual, bias, result, count, channels, _ROW_BLOCK, _CHANNEL_BLOCK)
    return result


def gate(rows: Tensor) -> Tensor:
    """First half of the channels times GELU of the second: (..., 2C) to (..., C), contiguous."""
    width = rows.shape[-1] // 2
    result = torch.empty((*rows.shape[:-1], width), device=rows.device, dtype=rows.dtype)
    count = result.numel() // width
    grid = (triton.cdiv(count, _GATE_ROWS), triton.cdiv(width, _GATE_BLOCK))
    _gate[grid](rows, result, count, width, _GATE_ROWS, _GATE_BLOCK)
    return result


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton has no types
def _statistics(rows, means, squares, count, channels, chunk_rows, chunks, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Mean and sum of squared differences of each channel over one chunk of rows."""
    chunk, batch = tl.program_id(0), tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    first = chunk * chunk_rows
    last = tl.minimum(first + chunk_rows, count)
    inside = channel < channels
    base = rows + batch * count * channels
    # Differences to the first row keep the sums small, whatever the mean is.
    pivot = tl.load(base + first.to(tl.int64) * channels + channel, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((CHANNELS,), tl.float32)
    square = tl.zeros((CHANNELS,), tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < last)[:, None] & inside[None, :]
        value = tl.load(base + row[:, None].to(tl.int64) * channels + channel[None, :], mask=mask, other=0.0)
        difference = tl.where(mask, value.to(tl.float32) - pivot[None, :], 0.0)
        total += tl.sum(difference, 0)
        square += tl.sum(difference * difference, 0)
    number = (last - first) * 1.0
    place = (batch * chunks + chunk) * channels + channel
    tl.store(means + place, pivot + total / number, mask=inside)
    tl.store(squares + place, square - total * total / number, mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _finish(  # type: ignore[no-untyped-def]
    means, squares, weight, bias, offset, scale, shift, count, channels, width, chunk_rows, chunks, offset_stride, eps,
    HAS_OFFSET: tl.constexpr, CHUNKS: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Join the chunks of one group; the result is one factor and one addend for each channel."""
    group, batch = tl.program_id(0), tl.program_id(1)
    chunk, position = tl.arange(0, CHUNKS), tl.arange(0, WIDTH)
    channel = group * width + position
    inside = position < width
    mask = (chunk < chunks)[:, None] & inside[None, :]
    place = (batch * chunks + chunk[:, None]) * channels + channel[None, :]
    number = tl.where(mask, tl.minimum(chunk_rows, count - chunk * chunk_rows)[:, None].to(tl.float32), 0.0)
    added = tl.zeros((WIDTH,), tl.float32)
    if HAS_OFFSET:
        added = tl.load(offset + batch * offset_stride + channel, mask=inside, other=0.0).to(tl.float32)
    mean = tl.load(means + place, mask=mask, other=0.0) + added[None, :]
    square = tl.load(squares + place, mask=mask, other=0.0)
    size = (count * 1.0) * width
    centre = tl.sum(tl.sum(mean * number, 0), 0) / size
    difference = tl.where(mask, mean - centre, 0.0)
    variance = tl.sum(tl.sum(square + number * difference * difference, 0), 0) / size
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    addend = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) + (added - centre) * factor
    tl.store(scale + batch * channels + channel, factor, mask=inside)
    tl.store(shift + batch * channels + channel, addend, mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _apply(rows, scale, shift, result, count, channels, SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Factor and addend for each channel, then SiLU where wanted."""
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    mask = (row < count)[:, None] & inside[None, :]
    place = batch * count * channels + row[:, None].to(tl.int64) * channels + channel[None, :]
    factor = tl.load(scale + batch * channels + channel, mask=inside, other=0.0)
    addend = tl.load(shift + batch * channels + channel, mask=inside, other=0.0)
    value = tl.load(rows + place, mask=mask, other=0.0).to(tl.float32) * factor[None, :] + addend[None, :]
    if SILU:
        value = value / (1.0 + tl.exp(-value))
    tl.store(result + place, value.to(result.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _add(rows, residual, bias, result, count, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    mask = (row < count)[:, None] & inside[None, :]
    place = row[:, None].to(tl.int64) * channels + channel[None, :]
    value = tl.load(rows + place, mask=mask, other=0.0).to(tl.float32)
    value += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    value += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    tl.store(result + place, value.to(result.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _gate(rows, result, count, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < count)[:, None] & (column < width)[None, :]
    place = row[:, None].to(tl.int64) * 2 * width + column[None, :]
    value = tl.load(rows + place, mask=inside, other=0.0).to(tl.float32)
    door = tl.load(rows + place + width, mask=inside, other=0.0).to(tl.float32)
    value *= 0.5 * door * (1.0 + tl.math.erf(door * 0.7071067811865476))
    place = row[:, None].to(tl.int64) * width + column[None, :]
    tl.store(result + place, value.to(result.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _layer_norm(  # type: ignore[no-untyped-def]
    rows, residual, added, weight, bias, total, normal, count, channels, eps,
    ADDS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """A few whole rows: their sum with the residual is rounded as it is stored, and normalised from there."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    known = channel < channels
    inside = (row < count)[:, None] & known[None, :]
    place = row[:, None].to(tl.int64) * channels + channel[None, :]
    value = tl.load(rows + place, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        value += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
        value += tl.load(added + channel, mask=known, other=0.0).to(tl.float32)[None, :]
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=inside)
        value = rounded.to(tl.float32)
    mean = tl.sum(value, 1) / channels
    difference = tl.where(inside, value - mean[:, None], 0.0)
    factor = 1.0 / tl.sqrt(tl.sum(difference * difference, 1) / channels + eps)
    gain = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    shift = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    result = difference * factor[:, None] * gain[None, :] + shift[None, :]
    tl.store(normal + place, result.to(normal.dtype.element_ty), mask=inside)
