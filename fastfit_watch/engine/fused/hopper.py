"""Softmax attention of our own for Hopper GPUs: heads of 40 or 48 channels, which every other kernel pads to 64.

The kernel is `hopper_attention.cu`, compiled by NVRTC when it is first asked for; PyTorch for CUDA brings NVRTC and its
bindings. Whatever is missing, or does not fit, is an error here, and another kernel's turn (see `backends`).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import torch
from torch import Tensor

HEAD_SIZES = (40, 48)
_CAPABILITY = (9, 0)
_ARCHITECTURE = "sm_90a"  # with the instructions that no other architecture has
# As in the source. Tiles of so many keys lie in shared memory in `_STAGES` places.
_KEYS = {40: 128, 48: 96}
_STAGES = 4
_GROUPS = 3
_CHUNK_BYTES = 16  # 8 channels of one key
_ALIGNED = 8  # channels that are read at once

_POINTER, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_int, ctypes.c_double


class UnsuitableError(RuntimeError):
    """This kernel is for other GPUs, types or heads, or there is no compiler for it."""


def source() -> str:
    """The kernel as CUDA C++."""
    return resources.files(__package__).joinpath("hopper_attention.cu").read_text(encoding="utf-8")


def source_digest() -> str:
    """Short SHA-256 of the source: what was measured of another one says nothing about this one."""
    return hashlib.sha256(source().encode()).hexdigest()[:12]


def compile_for(head_size: int) -> tuple[bytes, str]:
    """Machine code for heads of this size, and what the compiler said. Needs no GPU.

    Raises
    ------
    UnsuitableError : there is no kernel for this size, or no compiler. RuntimeError : the compiler refuses.
    """
    if head_size not in HEAD_SIZES:
        raise UnsuitableError(f"heads of {head_size} channels")
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        raise UnsuitableError("the package cuda-bindings is not installed")
    from cuda.bindings import nvrtc

    program = _checked(nvrtc.nvrtcCreateProgram(source().encode(), b"hopper_attention.cu", 0, [], []))
    options = [f"--gpu-architecture={_ARCHITECTURE}".encode(), f"-DHEAD={head_size}".encode(), b"--ptxas-options=-v"]
    refused, *_ = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
    _checked(nvrtc.nvrtcGetProgramLog(program, log))
    said = log.rstrip(b"\0").decode(errors="replace")
    if int(refused):
        raise RuntimeError(f"NVRTC refuses the attention kernel: {said}")
    code = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return bytes(code), said


def attend(query: Tensor, keys: Tensor, values: Tensor, scale: float | None = None) -> Tensor:
    """Softmax attention (Vaswani et al. 2017); the way there is told in the source.

    Parameters
    ----------
    query, keys, values : bfloat16 (B, heads, tokens, 40 or 48) on a Hopper GPU, channels dense; keys and values may be
        longer than the queries. scale : of the scores; None is 1 / sqrt(head size).

    Returns
    -------
    As query, laid out (B, tokens, heads, head size).

    Raises
    ------
    UnsuitableError : another GPU, type or head size, or no compiler. RuntimeError : compiler or driver refuse.
    """
    if not query.is_cuda or query.dtype != torch.bfloat16:
        raise UnsuitableError(f"{query.dtype} on {query.device}")
    batch, heads, tokens, head_size = query.shape
    kernel = _kernel(query.device, head_size)
    scale = 1 / math.sqrt(head_size) if scale is None else scale
    with torch.cuda.device(query.device):
        packed, tiles = kernel.pack(_aligned(keys), _aligned(values))
        query = _aligned(query)
        mixed = torch.empty((batch, tokens, heads, head_size), dtype=query.dtype, device=query.device)
        shape = (query, packed, mixed, tokens, tiles, heads, *_steps(query), scale * math.log2(math.e))
        grid = (-(-tokens // (64 * _GROUPS)), heads, batch)
        _launch(kernel.attend, grid, 128 * (_GROUPS + 1), shape, _STAGES * kernel.tile_bytes)
    return mixed.transpose(1, 2)


@dataclass(frozen=True)
class _Kernel:
    """The two functions for one head size, loaded on one device. `module` holds their code."""

    head_size: int
    module: Any
    attend: Any
    packer: Any

    @property
    def tile_bytes(self) -> int:
        """Of a tile: keys have 48 channels, values 8 more than the head."""
        return _KEYS[self.head_size] * (48 // 8 + self.head_size // 8 + 1) * _CHUNK_BYTES

    def pack(self, keys: Tensor, values: Tensor) -> tuple[Tensor, int]:
        """Keys and values as tiles in the order in which they are read, and how many tiles one head has."""
        batch, heads, count, _ = keys.shape
        tiles = -(-count // _KEYS[self.head_size])
        packed = torch.empty(batch * heads * tiles * self.tile_bytes, dtype=torch.uint8, device=keys.device)
        _launch(
            self.packer, (tiles, heads, batch), 256, (keys, values, packed, count, *_steps(keys), *_steps(values)), 0
        )
        return packed, tiles


@cache
def _kernel(device: torch.device, head_size: int) -> _Kernel:
    if torch.cuda.get_device_capability(device) != _CAPABILITY:
        raise UnsuitableError("not a Hopper GPU")
    code, _ = compile_for(head_size)
    from cuda.bindings import driver

    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # so that PyTorch has made the device's context current
        module = _checked(driver.cuModuleLoadData(code))
        attend, packer = (_checked(driver.cuModuleGetFunction(module, name)) for name in (b"attend", b"pack"))
        kernel = _Kernel(head_size, module, attend, packer)
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(attend, limit, _STAGES * kernel.tile_bytes))
    return kernel


def _launch(
    function: Any, grid: tuple[int, int, int], threads: int, given: Sequence[Tensor | int | float], shared_bytes: int
) -> None:
    """Give a kernel to the current stream."""
    from cuda.bindings import driver

    values = tuple(each.data_ptr() if isinstance(each, Tensor) else each for each in given)
    types = tuple(
        _POINTER if isinstance(each, Tensor) else _INT if isinstance(each, int) else _DOUBLE for each in given
    )
    stream = torch.cuda.current_stream().cuda_stream
    _checked(driver.cuLaunchKernel(function, *grid, threads, 1, 1, shared_bytes, stream, (values, types), 0))


def _aligned(tensor: Tensor) -> Tensor:
    """The same numbers where they can be read 8 at a time."""
    fits = tensor.stride(3) == 1 and not any(step % _ALIGNED for step in tensor.stride()[:3])
    fits = fits and tensor.data_ptr() % (_ALIGNED * tensor.element_size()) == 0
    return tensor if fits else tensor.clone(memory_format=torch.contiguous_format)


def _steps(tensor: Tensor) -> tuple[int, int, int]:
    """From token to token, head to head and row to row."""
    return tensor.stride(2), tensor.stride(1), tensor.stride(0)


def _checked(answer: Sequence[Any]) -> Any:
    """What the driver or the compiler answered; its first part says whether it went well."""
    status, *rest = answer
    if int(status):
        raise RuntimeError(f"{type(status).__name__} {status}")
    return rest[0] if rest else None
