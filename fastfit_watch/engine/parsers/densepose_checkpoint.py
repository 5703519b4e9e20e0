"""Reads the released DensePose weights without running what is inside them.

The release is a Python pickle, and an ordinary unpickler runs whatever the file asks for. Here only the few names
that NumPy arrays need are allowed. Like every checkpoint it is converted once, see `convert`.
"""

from __future__ import annotations

import codecs
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.engine.parsers.checkpoints import MEND, read_converted

NAMES_IN_MESSAGE = 3
# Saved beside the weights by old releases; constants here.
IGNORED_NAMES = re.compile(
    r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\.cell_anchors\.\d+|.*\.num_batches_tracked"
)


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
        The file.
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

    def read(source: Path) -> dict[str, torch.Tensor]:
        return _check_weights(_read_pickle(source), shapes, source)

    return _check_weights(read_converted(path, read), shapes, path)


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        with path.open("rb") as file:
            # The release holds byte strings of Python 2 style, which only latin1 carries over unchanged.
            content = RestrictedUnpickler(file, encoding="latin1").load()
    # A damaged pickle can fail in any of its steps, each with an exception of its own.
    except Exception as error:
        raise BundleError(f"The DensePose weights {path} cannot be read: {error}.", hint=MEND) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise BundleError(f'The file {path} is not a DensePose checkpoint: it has no "model".', hint=MEND)
    weights = {}
    for name, value in model.items():
        if IGNORED_NAMES.fullmatch(str(name)):
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise BundleError(f"The file {path} has no numbers under the name {name}.", hint=MEND)
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
