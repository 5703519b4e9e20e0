"""DensePose with the weights that its values were recorded with (see tests/golden/README.md): it sees people."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from fastfit_watch.engine.parsers.densepose_network import DensePoseNetwork

GOLDEN = Path(__file__).parents[1] / "golden"


def read_golden() -> dict[str, np.ndarray]:
    """All recorded values that are kept here."""
    with np.load(GOLDEN / "densepose.npz") as arrays:
        return dict(arrays)


def read_key_table() -> dict[str, list[int]]:
    """Names and shapes of the network's tensors."""
    table: dict[str, list[int]] = json.loads((GOLDEN / "densepose_keys.json").read_text())["keys"]
    return table


def build_network(golden: Mapping[str, np.ndarray]) -> DensePoseNetwork:
    """The network at its real size, float32 on the CPU. golden : as `read_golden` reads it."""
    weights = {name: _draw(name, shape) for name, shape in read_key_table().items()}
    weights["roi_heads.box_predictor.cls_score.weight"] *= 8
    weights["roi_heads.box_predictor.bbox_pred.weight"] *= 10
    for key in golden:
        if key.startswith("w/override/"):
            weights[key.removeprefix("w/override/")] = torch.from_numpy(golden[key])
    with torch.device("meta"):
        network = DensePoseNetwork()
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval()


def _draw(name: str, shape: list[int]) -> torch.Tensor:
    """Seeded weights that keep the activations of this network in range."""
    normal = torch.empty(shape).normal_(generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return 1 + 0.1 * normal.abs()
    if name.endswith(("running_mean", "bias")):
        return 0.1 * normal
    return 0.02 * normal if len(shape) >= 2 else 1 + 0.1 * normal
