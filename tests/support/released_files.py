"""The released repositories in small: the names and formats of their files, networks of the true contracts.

UNet and VAE are the golden pipelines' tiny ones. SCHP and DensePose have one size only; their weights are zeros, so
SCHP sees one class everywhere, and DensePose nobody. DWPose's networks are ONNX files that always give one answer.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from support.tiny_networks import make_unet, make_vae, read_meta, read_vectors
from torch import nn

from fastfit_watch.engine.parsers.densepose_network import DensePoseNetwork
from fastfit_watch.engine.parsers.schp_network import AugmentCE2P

UPPER_CLOTHES = {"lip": 5, "atr": 4}
CLASSES = {"lip": 20, "atr": 18}
SEEN_POINT = 0.9
POINTS = 133


def write_model(folder: Path) -> None:
    """`FastFit-MR-1024`: scheduler, vae, unet, and a card."""
    meta = read_meta(read_vectors("pipeline_cfg1.npz"))
    _write_json(folder / "scheduler" / "scheduler_config.json", meta["scheduler"])
    unet = make_unet(meta["unet_config"], meta["unet_fill_seed"])
    for name, network in (("unet", unet), ("vae", make_vae(meta["vae_config"], meta["vae_fill_seed"]))):
        _write_json(folder / name / "config.json", meta[f"{name}_config"])
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        save_file(weights, folder / name / "diffusion_pytorch_model.safetensors")
    (folder / "README.md").write_text("# The card of the model, with a good many words in it\n")


def write_toolkit(folder: Path) -> None:
    """`Human-Toolkit`, in folders as toolkits have them."""
    for name in ("DWPose", "DensePose", "SCHP"):
        (folder / name).mkdir(parents=True)
    write_pose(folder / "DWPose")
    write_densepose(folder / "DensePose" / "model_final_162be9.pkl")
    for dataset, label in UPPER_CLOTHES.items():
        write_schp(folder / "SCHP" / f"exp-schp-{dataset}.pth", CLASSES[dataset], label)


def write_pose(folder: Path) -> None:
    """A detector that sees nobody, and a pose network that sees every point in the middle."""
    _write_constant(folder / "yolox_l.onnx", (1, 3, 640, 640), {"output": np.zeros((1, 8400, 85), np.float32)})
    middle = {"simcc_x": np.zeros((1, POINTS, 576), np.float32), "simcc_y": np.zeros((1, POINTS, 768), np.float32)}
    for bins in middle.values():
        bins[:, np.arange(POINTS), bins.shape[2] // 2 + np.arange(POINTS) - POINTS // 2] = SEEN_POINT
    _write_constant(folder / "dw-ll_ucoco_384.onnx", (1, 3, 384, 288), middle)


def write_densepose(path: Path) -> None:
    """The whole network as NumPy arrays of zeros: one for each shape, as a pickle writes an object only once."""
    with torch.device("meta"):
        shapes = _shapes(DensePoseNetwork())
    zeros = {shape: np.zeros(shape, np.uint8) for shape in set(shapes.values())}
    model = {name: zeros[shape] for name, shape in shapes.items()}
    with path.open("wb") as file:
        pickle.dump({"model": model, "__author__": "nobody"}, file, protocol=2)


def write_schp(path: Path, classes: int, label: int) -> None:
    """The whole network as zeros that share their memory, but for the last bias: `label` wins everywhere."""
    with torch.device("meta"):
        network = AugmentCE2P(classes)
    weights = {f"module.{name}": torch.zeros(()).expand(shape) for name, shape in _shapes(network).items()}
    weights["module.fushion.4.bias"] = torch.nn.functional.one_hot(torch.tensor(label), classes).float()
    torch.save({"state_dict": weights}, path)


def _shapes(network: nn.Module) -> Mapping[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _write_constant(path: Path, input_shape: tuple[int, ...], answers: Mapping[str, NDArray[np.float32]]) -> None:
    """An ONNX network that takes pictures of a shape and always gives the same answers."""
    constants = {f"{name}_always": value for name, value in answers.items()}
    nodes = [helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0)]
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    nodes += [helper.make_node("Add", [f"{name}_always", "nothing"], [name]) for name in answers]
    initial = {**constants, "zero": np.array(0, np.float32)}
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in answers.items()],
        [numpy_helper.from_array(value, name) for name, value in initial.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def _write_json(path: Path, entries: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
