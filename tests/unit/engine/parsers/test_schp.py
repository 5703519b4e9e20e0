"""SCHP against numbers measured on the released code, and the reading of its checkpoints."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.engine.parsers import schp
from fastfit_watch.engine.parsers.checkpoints import read_weights
from fastfit_watch.engine.parsers.schp import LABELS, SCHP, Dataset
from fastfit_watch.engine.parsers.schp_network import AugmentCE2P

Vectors = Mapping[str, NDArray[Any]]
DATASETS: tuple[Dataset, ...] = ("lip", "atr")
LOGIT_TOLERANCE = 1e-4
# What the released files call these tensors; the table is section 3.4's, read backwards.
RELEASED_NAMES = {
    "decoder.conv3.3.weight": "decoder.conv3.2.weight",
    "decoder.conv3.4.weight": "decoder.conv3.3.weight",
    "decoder.conv3.4.bias": "decoder.conv3.3.bias",
    "decoder.conv3.4.running_mean": "decoder.conv3.3.running_mean",
    "decoder.conv3.4.running_var": "decoder.conv3.3.running_var",
    "fushion.4.weight": "fushion.3.weight",
    "fushion.4.bias": "fushion.3.bias",
}
FOLDED_NORMS = ("context_encoding.", "decoder.", "edge.", "fushion.")


@pytest.fixture(scope="module")
def golden() -> Vectors:
    path = Path(__file__).parents[3] / "golden" / "schp.npz"
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _empty_network(dataset: Dataset) -> AugmentCE2P:
    with torch.device("meta"):
        return AugmentCE2P(LABELS[dataset].classes)


def _drawn_weights(golden: Vectors, dataset: Dataset) -> dict[str, Tensor]:
    """Draw every weight as the golden vectors' README says: from the tensor's name and one seed."""
    seed = int(golden[f"{dataset}_fill_seed"])
    return {
        name: _draw(name, tuple(tensor.shape), seed) for name, tensor in _empty_network(dataset).state_dict().items()
    }


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    z = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    if len(shape) > 1:
        z /= np.sqrt(np.prod(shape[1:]))
    elif name.endswith("running_var"):
        z = np.exp(0.2 * z)
    else:
        z = 0.1 * z + (1 if name.endswith("weight") else 0)
    return torch.from_numpy(z.astype(np.float32))


def _released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the released layout, which also keeps no batch counters in its folded norms."""
    kept = {n: t for n, t in weights.items() if not (n.startswith(FOLDED_NORMS) and n.endswith("num_batches_tracked"))}
    return {RELEASED_NAMES.get(name, name): tensor for name, tensor in kept.items()}


@pytest.fixture
def roomy_path() -> Iterator[Path]:
    """A folder that is gone after the test; pytest's own would keep half a gigabyte."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _check_labels(labels: NDArray[np.uint8], golden: Vectors, case: str) -> None:
    """Compare all pixels but those whose two best classes are so close that rounding may decide."""
    assert labels.dtype == np.uint8
    close = np.unpackbits(golden[f"{case}_margin_lt_1e-3"])[: labels.size].reshape(labels.shape)
    np.testing.assert_array_equal(labels[close == 0], golden[f"{case}_argmax"][close == 0])


def test_atr_network_answers_as_measured(golden: Vectors) -> None:
    image, network = golden["atr0_in"], _empty_network("atr")
    weights = schp.match_weights(_released(_drawn_weights(golden, "atr")), network, Path("atr.pth"))
    network.load_state_dict(weights, assign=True)
    logits = SCHP(network, "atr").predict(torch.from_numpy(schp.cut_square(image, 512)[None]))
    np.testing.assert_allclose(logits[:, :, ::4, ::4], golden["atr0_net_out_strided4"], rtol=0, atol=LOGIT_TOLERANCE)
    planes = list(schp.warp_back(schp.raise_logits(logits, 512)[0].numpy(), image.shape[:2]))
    np.testing.assert_allclose(
        np.stack(planes, axis=-1)[::8, ::8], golden["atr0_logits_strided8"], rtol=0, atol=LOGIT_TOLERANCE
    )
    _check_labels(schp.pick_labels(iter(planes)), golden, "atr0")


def test_lip_batch_of_unlike_sizes_is_labelled_as_measured(golden: Vectors, roomy_path: Path) -> None:
    weights = {f"module.{name}": tensor for name, tensor in _released(_drawn_weights(golden, "lip")).items()}
    weights["module.decoder.conv4.weight"] = weights["module.edge.conv5.weight"] = torch.ones(1)
    path = roomy_path / "exp-schp-lip.pth"
    torch.save({"epoch": 1, "state_dict": weights}, path)
    parser = SCHP.load(path, "lip", "cpu")
    first, second = parser.parse_batch([golden["lip0_in"], golden["lip1_in"]])
    _check_labels(first, golden, "lip0")
    _check_labels(second, golden, "lip1")


@pytest.mark.parametrize("case", ["lip0", "lip1", "atr0"])
def test_picture_is_fitted_as_measured(golden: Vectors, case: str) -> None:
    side = LABELS["lip" if case.startswith("lip") else "atr"].side
    image = golden[f"{case}_in"]
    forward, backward = schp.square_warp(image.shape[:2], side)
    np.testing.assert_array_equal(forward, golden[f"{case}_affine"])
    np.testing.assert_array_equal(backward, golden[f"{case}_affine_inv"])
    pixels = schp.normalise(torch.from_numpy(schp.cut_square(image, side)[None]))
    np.testing.assert_allclose(pixels[:, :, ::4, ::4], golden[f"{case}_net_in_strided4"], rtol=0, atol=1e-6)


def test_every_class_is_labelled_as_measured(golden: Vectors) -> None:
    low = torch.from_numpy(golden["lip_syn0_lowres"].astype(np.float32))
    width, height = (int(side) for side in golden["lip_syn0_size_wh"])
    planes = list(schp.warp_back(schp.raise_logits(low, 473)[0].numpy(), (height, width)))
    np.testing.assert_allclose(
        np.stack(planes, axis=-1)[::8, ::8], golden["lip_syn0_logits_strided8"], rtol=0, atol=1e-5
    )
    labels = schp.pick_labels(iter(planes))
    np.testing.assert_array_equal(labels, golden["lip_syn0_argmax"])
    assert set(np.unique(labels)) == set(range(20))


def test_first_of_equal_classes_wins() -> None:
    planes = np.array([[[1, 0, 2]], [[1, 3, 2]], [[0, 3, 5]]], np.float32)
    np.testing.assert_array_equal(schp.pick_labels(iter(planes)), planes.argmax(axis=0))


@pytest.mark.parametrize("dataset", DATASETS)
def test_network_holds_the_released_tensors(golden: Vectors, dataset: Dataset) -> None:
    shapes = {name: list(tensor.shape) for name, tensor in _empty_network(dataset).state_dict().items()}
    expected = dict(zip(golden["key_names"].tolist(), golden["key_shapes"].tolist(), strict=True))
    classes = LABELS[dataset].classes
    expected["fushion.4.weight"], expected["fushion.4.bias"] = f"{classes} 256 1 1", f"{classes}"
    assert {name: " ".join(map(str, shape)) for name, shape in shapes.items()} == expected


@pytest.mark.parametrize("layout", [_released, dict], ids=["released", "own"])
def test_every_tensor_finds_its_place(layout: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> None:
    network = _empty_network("lip")
    weights = network.state_dict()
    matched = schp.match_weights(layout(weights), network, Path("lip.pth"))
    assert matched.keys() == weights.keys()
    assert all(tensor is weights[name] for name, tensor in matched.items() if not name.endswith("batches_tracked"))


def test_missing_tensor_is_named() -> None:
    network = _empty_network("lip")
    weights = network.state_dict()
    del weights["layer3.7.conv2.weight"]
    with pytest.raises(BundleError, match=r"lip\.pth does not fit.*layer3\.7\.conv2\.weight is missing"):
        schp.match_weights(weights, network, Path("lip.pth"))


def test_swapped_datasets_are_noticed() -> None:
    weights = _empty_network("atr").state_dict()
    with pytest.raises(BundleError, match=r"fushion\.4\.weight has shape \(18, 256, 1, 1\), not \(20.*swapped"):
        schp.match_weights(weights, _empty_network("lip"), Path("lip.pth"))


def _save(path: Path, value: float) -> None:
    torch.save({"state_dict": {"a": torch.full((3,), value)}}, path)


def test_checkpoint_is_converted_once(tmp_path: Path) -> None:
    path, copy = tmp_path / "lip.pth", tmp_path / "converted" / "lip.pth.safetensors"
    _save(path, 1)
    assert read_weights(path)["a"].tolist() == [1, 1, 1]
    assert load_file(copy)["a"].tolist() == [1, 1, 1]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["converted", "lip.pth"]
    assert [entry.name for entry in copy.parent.iterdir()] == [copy.name]
    facts = path.stat()
    path.write_bytes(bytes(facts.st_size))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert read_weights(path)["a"].tolist() == [1, 1, 1], "the copy should have been read"


def test_changed_checkpoint_is_converted_again(tmp_path: Path) -> None:
    path = tmp_path / "lip.pth"
    _save(path, 1)
    read_weights(path)
    _save(path, 2)
    os.utime(path, ns=(0, 1))
    assert read_weights(path)["a"].tolist() == [2, 2, 2]
    assert load_file(tmp_path / "converted" / "lip.pth.safetensors")["a"].tolist() == [2, 2, 2]


def test_damaged_copy_is_replaced(tmp_path: Path) -> None:
    path, copy = tmp_path / "lip.pth", tmp_path / "converted" / "lip.pth.safetensors"
    _save(path, 1)
    read_weights(path)
    copy.write_bytes(copy.read_bytes()[:-4])
    assert read_weights(path)["a"].tolist() == [1, 1, 1]
    assert load_file(copy)["a"].tolist() == [1, 1, 1]


def test_copy_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lip.pth"
    _save(path, 1)
    (tmp_path / "converted").write_text("in the way")
    assert read_weights(path)["a"].tolist() == [1, 1, 1]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["converted", "lip.pth"]


class _Trap:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    path, mark = tmp_path / "lip.pth", tmp_path / "ran"
    torch.save({"state_dict": _Trap(mark)}, path)
    with pytest.raises(BundleError, match=r"lip\.pth is not a checkpoint that can be read safely"):
        read_weights(path)
    assert not mark.exists()


def test_cut_off_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lip.pth"
    _save(path, 1)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BundleError, match=r"lip\.pth is not a checkpoint"):
        read_weights(path)


def test_file_without_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lip.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(BundleError, match=r"lip\.pth holds no table of weights"):
        read_weights(path)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"lip\.pth is missing.*models pull"):
        read_weights(tmp_path / "lip.pth")
