"""Reads the released DensePose weights without running what is inside them, and keeps a safe copy.

The release is a Python pickle, and an ordinary unpickler runs whatever the file asks for. Here only the few names
that NumPy arrays need are allowed. The first reading writes a safetensors file beside it, which is read from then on.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from fastfit_watch.errors import BundleError

SOURCE_HASH = "source_sha256"
NAMES_IN_MESSAGE = 3
# Saved beside the weights by old releases; constants here.
IGNORED_NAMES = re.compile(
    r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\.cell_anchors\.\d+|.*\.num_batches_tracked"
)
FETCH_AGAIN = "Delete it and fetch the model again with `fastfit-watch models pull`."


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that can build dictionaries and NumPy arrays, and refuses every other name."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the allowed object, or raise UnpicklingError."""
        # NumPy 2 moved this module; the release was written by NumPy 1.
        module = module_name.replace("numpy.core.", "numpy._core.")
        allowed: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("numpy", "dtype"): np.dtype,
            ("numpy", "ndarray"): np.ndarray,
            # Both functions are reached through public objects, as their module is private to NumPy.
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "scalar"): np.float32(0).__reduce__()[0],
            ("_codecs", "encode"): codecs.encode,
        }
        if (module, global_name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which weights never need")
        return allowed[module, global_name]


def load_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Read weights from a `.pkl` or `.safetensors` file.

    Parameters
    ----------
    path
        The file. Beside a `.pkl` file, a `.safetensors` file of the same name is written once and used from then on,
        as long as it was made from that very `.pkl`.
    shapes
        Every name the network has, and its shape.

    Returns
    -------
    Exactly the names in `shapes`, float32, on the CPU.

    Raises
    ------
    BundleError
        The file is missing, damaged, unsafe, or holds other weights.
    """
    if not path.is_file():
        raise BundleError(
            f"The DensePose weights {path} are missing.", hint="Fetch them with `fastfit-watch models pull`."
        )
    if path.suffix == ".safetensors":
        return _check_weights(_read_safetensors(path), shapes, path)
    source_hash = _hash_file(path)
    copy = path.with_suffix(".safetensors")
    if _was_made_from(copy, source_hash):
        return _check_weights(_read_safetensors(copy), shapes, copy)
    weights = _check_weights(_read_pickle(path), shapes, path)
    # The copy saves time only. A read-only or full disk must not stop the engine.
    with contextlib.suppress(OSError, SafetensorError):
        _write_safetensors(copy, weights, source_hash)
    return weights


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _was_made_from(copy: Path, source_hash: str) -> bool:
    """Whether `copy` is a whole safetensors file that was converted from the pickle of this hash."""
    try:
        with safe_open(copy, framework="pt") as file:
            return bool((file.metadata() or {}).get(SOURCE_HASH) == source_hash)
    except (OSError, SafetensorError):
        return False


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"The DensePose weights {path} cannot be read: {error}.", hint=FETCH_AGAIN) from error


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        with path.open("rb") as file:
            # The release holds byte strings of Python 2 style, which only latin1 carries over unchanged.
            content = RestrictedUnpickler(file, encoding="latin1").load()
    # A damaged pickle can fail in any of its steps, each with an exception of its own.
    except Exception as error:
        raise BundleError(f"The DensePose weights {path} cannot be read: {error}.", hint=FETCH_AGAIN) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise BundleError(f'The file {path} is not a DensePose checkpoint: it has no "model".', hint=FETCH_AGAIN)
    weights = {}
    for name, value in model.items():
        if IGNORED_NAMES.fullmatch(str(name)):
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise BundleError(f"The file {path} has no numbers under the name {name}.", hint=FETCH_AGAIN)
        weights[str(name)] = torch.from_numpy(np.array(array, dtype=np.float32))
    return weights


def _check_weights(
    weights: dict[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> dict[str, torch.Tensor]:
    """Return `weights` as float32, or say in one sentence all that does not fit."""
    wrong = [
        f"{name} is {tuple(weights[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    groups = {
        "missing": sorted(shapes.keys() - weights.keys()),
        "unknown": sorted(weights.keys() - shapes.keys()),
        "of the wrong shape": wrong,
    }
    faults = [f"{len(names)} {kind} ({_shorten(names)})" for kind, names in groups.items() if names]
    if faults:
        raise BundleError(
            f"The weights {path} do not fit DensePose R_50_FPN_s1x: {'; '.join(faults)}.",
            hint="The right file is model_final_162be9.pkl.",
        )
    return {name: tensor.float() for name, tensor in weights.items()}


def _shorten(names: list[str]) -> str:
    more = len(names) - NAMES_IN_MESSAGE
    return ", ".join(names[:NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def _write_safetensors(path: Path, weights: dict[str, torch.Tensor], source_hash: str) -> None:
    """Write all or nothing: another process never sees half a file, and a crash leaves the old state."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(weights, partial, metadata={SOURCE_HASH: source_hash})
        _flush(partial)
        partial.replace(path)
        _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
