"""Reading DensePose weights: the released form, damage, other networks, and files that try to run code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.engine.parsers.densepose import DensePose
from fastfit_watch.engine.parsers.densepose_checkpoint import load_weights
from fastfit_watch.engine.parsers.densepose_network import DensePoseNetwork

SHAPES = {"conv.weight": (2, 3), "conv.bias": (3,)}
ARRAYS: dict[str, Any] = {
    "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "conv.bias": np.array([-1.5, 0, 200], dtype=np.float32),
}


def dump(path: Path, model: dict[str, Any], **more: Any) -> Path:
    """Write `model` the way NumPy 1 did for the released file: protocol 2, old module name, flags as numbers."""
    content = pickle.dumps({"model": model, "__author__": "someone", **more}, protocol=2)
    old = content.replace(b"numpy._core.", b"numpy.core.").replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
    path.write_bytes(old)
    return path


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_weights(weights: dict[str, torch.Tensor]) -> None:
    assert {name: tensor.tolist() for name, tensor in weights.items()} == {n: a.tolist() for n, a in ARRAYS.items()}
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())


def test_release_is_read_and_converted_once(tmp_path: Path) -> None:
    path = dump(tmp_path / "model.pkl", ARRAYS)
    assert b"numpy.core.multiarray" in path.read_bytes()
    assert_weights(load_weights(path, SHAPES))
    copy = tmp_path / "converted" / "model.pkl.safetensors"
    assert_weights(load_file(copy))
    assert list_names(tmp_path) == ["converted", "model.pkl"]
    written = copy.stat().st_mtime_ns
    assert_weights(load_weights(path, SHAPES))
    assert_weights(load_weights(copy, SHAPES))
    assert copy.stat().st_mtime_ns == written


def test_a_start_reads_the_copy_alone(tmp_path: Path) -> None:
    path = dump(tmp_path / "model.pkl", ARRAYS)
    load_weights(path, SHAPES)
    facts = path.stat()
    path.write_bytes(bytes(facts.st_size))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert_weights(load_weights(path, SHAPES))


def test_copy_is_used_only_while_it_belongs_to_the_pickle(tmp_path: Path) -> None:
    path = dump(tmp_path / "model.pkl", {**ARRAYS, "conv.bias": np.zeros(3, np.float32)})
    assert load_weights(path, SHAPES)["conv.bias"].tolist() == [0, 0, 0]
    dump(path, ARRAYS)
    assert_weights(load_weights(path, SHAPES))
    copy = tmp_path / "converted" / "model.pkl.safetensors"
    copy.write_bytes(copy.read_bytes()[:20])
    assert_weights(load_weights(path, SHAPES))
    assert_weights(load_file(copy))


def test_weights_load_where_no_copy_can_be_written(tmp_path: Path) -> None:
    path = dump(tmp_path / "model.pkl", ARRAYS)
    (tmp_path / "converted").write_text("in the way")
    assert_weights(load_weights(path, SHAPES))
    assert list_names(tmp_path) == ["converted", "model.pkl"]


def test_leftovers_of_old_releases_are_ignored(tmp_path: Path) -> None:
    extra = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.cell_anchors.4", "a.num_batches_tracked")
    path = dump(tmp_path / "model.pkl", {**ARRAYS, **{name: np.float64(1) for name in extra}})
    assert_weights(load_weights(path, SHAPES))


@pytest.mark.parametrize("kind", ["pkl", "safetensors"])
def test_other_weights_are_named_in_one_sentence(tmp_path: Path, kind: str) -> None:
    wrong = {"conv.bias": np.zeros(4, np.float32), "fc.weight": np.zeros(2, np.float32)}
    path = tmp_path / f"model.{kind}"
    if kind == "pkl":
        dump(path, wrong)
    else:
        save_file({name: torch.from_numpy(array) for name, array in wrong.items()}, path)
    with pytest.raises(BundleError) as caught:
        load_weights(path, SHAPES)
    assert caught.value.message == (
        f"The weights {path} do not fit DensePose R_50_FPN_s1x: 1 missing (conv.weight); 1 unknown (fc.weight); "
        "1 of the wrong shape (conv.bias is (4,), expected (3,))."
    )
    assert list_names(tmp_path) == [path.name]


class Runs:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "model.pkl", tmp_path / "trace"
    for call in (Runs(os.system, f"mkdir {trace}"), Runs(exec, f"import os; os.mkdir({str(trace)!r})")):
        content = pickle.dumps({"model": {**ARRAYS, "conv.bias": call}}, protocol=protocol)
        path.write_bytes(content)
        with pytest.raises(BundleError, match="which weights never need"):
            load_weights(path, SHAPES)
        assert list_names(tmp_path) == ["model.pkl"]
        pickle.loads(content)  # noqa: S301 - proves that the file really is dangerous
        trace.rmdir()


def test_dotted_names_do_not_slip_past_the_list(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(BundleError, match=r"numpy\.ndarray\.tofile"):
        load_weights(path, SHAPES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"<html>not found</html>", "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\n", "cannot be read"),
        (pickle.dumps(["model"]), 'it has no "model"'),
        (pickle.dumps({"model": 3}), 'it has no "model"'),
        (pickle.dumps({"model": {"conv.bias": "text"}}), "no numbers under the name conv.bias"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        load_weights(path, SHAPES)
    assert str(path) in caught.value.message
    assert "fastfit-watch models pull" in caught.value.hint


def test_every_cut_of_a_pickle_is_refused(tmp_path: Path) -> None:
    path = dump(tmp_path / "model.pkl", ARRAYS)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(BundleError):
            load_weights(path, SHAPES)


def test_missing_and_damaged_safetensors(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing"):
        load_weights(tmp_path / "model.pkl", SHAPES)
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(b"\x10\x00")
    with pytest.raises(BundleError, match="cannot be read"):
        load_weights(damaged, SHAPES)


def test_whole_network_loads_from_a_file(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = DensePoseNetwork().state_dict()
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(tensor.shape, dtype=torch.uint8) for name, tensor in state.items()}, path)
    assert (
        DensePose.load(path, "cpu", torch.bfloat16).network.backbone.bottom_up.stem.conv1.weight.dtype == torch.bfloat16
    )
    densepose = DensePose.load(path, "cpu")
    path.unlink()
    loaded = densepose.network.state_dict()
    assert {(t.dtype, t.device.type, t.requires_grad) for t in loaded.values()} == {(torch.float32, "cpu", False)}
    # Zero weights are unsure of everyone.
    assert not densepose.label(np.zeros((64, 48, 3), dtype=np.uint8)).any()
