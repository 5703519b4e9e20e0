"""Checkpoints that are not safetensors: read without running code from them, and converted once for every later start.

The copy of `toolkit/lip.pth` is `toolkit/converted/lip.pth.safetensors`. It says which file it was made from by name,
size and time, so that nothing has to be hashed at a start. Deleting that folder costs one conversion.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastfit_watch.domain.errors import BundleError

CONVERTED = "converted"
MEND = "Run `fastfit-watch models pull`: it fetches what is missing or damaged."


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.pth`, `.bin` or `.safetensors` file by name, on the CPU. See `read_converted`."""
    return read_converted(path, read_checkpoint)


def read_converted(path: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU: of its safetensors copy if there is one that belongs to it.

    The first reading, by `read`, writes the copy. Where the folder cannot be written, the file is read each time.

    Raises
    ------
    BundleError: the file is missing or damaged, or `read` refuses it.
    """
    if not path.is_file():
        raise BundleError(f"{path} is missing.", hint=MEND)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    copy = path.parent / CONVERTED / f"{path.name}.safetensors"
    stamp = _stamp(path)
    if _stamp_of_copy(copy) == stamp:
        with suppress(BundleError):
            return _read_safetensors(copy)
    weights = read(path)
    with suppress(OSError, SafetensorError):  # the copy only saves time: a full or read-only disk is no reason to fail
        _write_safetensors(weights, copy, stamp)
    return weights


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.pth` file, of its `state_dict` entry if it has one. Raises BundleError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{path} is not a checkpoint that can be read safely: {reason}", hint=MEND) from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise BundleError(f"{path} holds no table of weights.", hint=MEND)
    # safetensors refuses tensors that share memory, so each gets its own.
    return {str(name): tensor.clone(memory_format=torch.contiguous_format) for name, tensor in content.items()}


def _stamp(path: Path) -> dict[str, str]:
    facts = path.stat()
    return {"source": path.name, "source_bytes": str(facts.st_size), "source_mtime_ns": str(facts.st_mtime_ns)}


def _stamp_of_copy(copy: Path) -> dict[str, str] | None:
    try:
        with safe_open(copy, framework="pt") as file:
            stamp: dict[str, str] | None = file.metadata()
    except (OSError, SafetensorError):
        return None
    return stamp


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read: {error}.", hint=MEND) from error


def _write_safetensors(weights: Mapping[str, Tensor], path: Path, stamp: dict[str, str]) -> None:
    """Write whole or not at all: temporary file beside the target, fsync, rename, fsync of the folder."""
    path.parent.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        save_file(dict(weights), temporary, metadata=stamp)
        _sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
