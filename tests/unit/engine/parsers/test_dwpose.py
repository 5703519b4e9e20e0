"""DWPose against numbers measured on the released code, first step by step, then whole with ONNX stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastfit_watch.domain.errors import BundleError, EngineError
from fastfit_watch.engine.parsers import dwpose
from fastfit_watch.engine.parsers.dwpose import DWPose

Vectors = Mapping[str, NDArray[Any]]
# full: one person; extra: two people, boxes that overlap them and one too weak; nobody: no box at all.
CASES = {"full": 0, "extra": 2, "nobody": 3}
MISSING_POINTS = 1  # its picture is not kept, so it has no place in CASES
WARP_TOLERANCE = 0.02  # one uint8 level after normalisation


@pytest.fixture(scope="module")
def golden() -> Vectors:
    path = Path(__file__).parents[3] / "golden" / "dwpose_decode.npz"
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _case(golden: Vectors, number: int) -> Vectors:
    prefix = f"c{number}_"
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def _detector_rows(case: Vectors) -> NDArray[np.float32]:
    rows = np.zeros((8400, 85), np.float32)
    rows[case["det_raw_rows"]] = case["det_raw_vals"]
    return rows


@pytest.mark.parametrize("number", CASES.values(), ids=CASES)
def test_picture_reaches_the_detector_as_measured(golden: Vectors, number: int) -> None:
    case = _case(golden, number)
    picture = dwpose.resize_for_detection(case["image"])
    assert (picture.shape[1], picture.shape[0]) == tuple(case["resized_wh"])
    np.testing.assert_array_equal(picture[::4, ::4], case["resized_strided4"])
    pixels, _ = dwpose.letterbox(picture)
    assert pixels.shape == (1, 3, 640, 640)
    np.testing.assert_array_equal(pixels[:, :, ::8, ::8], case["det_in_strided8"])


def test_large_pictures_shrink_by_area() -> None:
    image = np.random.default_rng(3).integers(0, 256, (1024, 1024, 3), np.uint8)
    shrunk = dwpose.resize_for_detection(image)
    means = image.reshape(512, 2, 512, 2, 3).mean(axis=(1, 3))
    assert shrunk.shape == (512, 512, 3)
    assert np.abs(shrunk - means).max() <= 0.5


@pytest.mark.parametrize("number", CASES.values(), ids=CASES)
def test_people_are_decoded_as_measured(golden: Vectors, number: int) -> None:
    case = _case(golden, number)
    width, height = (int(side) for side in case["resized_wh"])
    boxes = dwpose.decode_people(_detector_rows(case), min(640 / height, 640 / width))
    np.testing.assert_array_equal(boxes, case["boxes"].reshape(-1, 4))


def test_overlapping_boxes_are_suppressed_as_measured(golden: Vectors) -> None:
    boxes, scores = golden["nms_boxes"], golden["nms_scores"]
    found = []
    for label in range(scores.shape[1]):
        kept = dwpose.suppress_overlaps(boxes, scores[:, label])
        found.append(np.column_stack([boxes[kept], scores[kept, label], np.full(len(kept), label)]))
    np.testing.assert_array_equal(np.concatenate(found), golden["nms_out"])


@pytest.mark.parametrize("number", CASES.values(), ids=CASES)
def test_people_are_cut_out_as_measured(golden: Vectors, number: int) -> None:
    case = _case(golden, number)
    picture = dwpose.resize_for_detection(case["image"])
    whole = np.array([[0, 0, picture.shape[1], picture.shape[0]]])
    boxes = case["boxes"] if len(case["boxes"]) else whole
    for person, box in enumerate(boxes):
        centre, scale = dwpose.frame_person(box)
        np.testing.assert_array_equal(centre, case["centers"][person])
        np.testing.assert_array_equal(scale, case["scales_fixed"][person])
        np.testing.assert_array_equal(dwpose.person_warp(centre, scale), case["warps"][person])
        cut = dwpose.cut_person(picture, centre, scale)
        assert cut.shape == (1, 3, 384, 288)
        np.testing.assert_allclose(cut[:, :, ::4, ::4], case[f"pose_in{person}_strided4"], rtol=0, atol=WARP_TOLERANCE)


def test_simcc_is_decoded_as_measured(golden: Vectors) -> None:
    for n in range(2):
        points, scores = dwpose.decode_simcc(golden["simcc_rand_x"][n], golden["simcc_rand_y"][n])
        np.testing.assert_array_equal(points, golden["simcc_rand_kpts"][n])
        np.testing.assert_array_equal(scores, golden["simcc_rand_scores"][n])


def test_points_nobody_believes_in_lie_outside() -> None:
    rows = np.full((2, 8), -1, np.float32)
    rows[1, 4] = 0.5
    points, scores = dwpose.decode_simcc(rows, rows)
    np.testing.assert_array_equal(points, [[-0.5, -0.5], [2, 2]])
    np.testing.assert_array_equal(scores, np.array([-1, 0.5], np.float32))


@pytest.mark.parametrize("number", [*CASES.values(), MISSING_POINTS], ids=[*CASES, "missing"])
def test_keypoints_are_as_measured(golden: Vectors, number: int) -> None:
    case = _case(golden, number)
    points, scores = [], []
    for person, (centre, scale) in enumerate(zip(case["centers"], case["scales_fixed"], strict=True)):
        at, score = dwpose.decode_simcc(case[f"simcc{person}_x"][0], case[f"simcc{person}_y"][0])
        points.append(dwpose.to_picture(at, centre, scale))
        scores.append(score)
    keypoints, marks = dwpose.to_openpose(np.stack(points), np.stack(scores))
    np.testing.assert_allclose(keypoints, case["keypoints134"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(marks, case["scores134"])


@pytest.mark.parametrize("number", CASES.values(), ids=CASES)
def test_whole_drawing_is_as_measured(golden: Vectors, number: int, tmp_path: Path) -> None:
    case = _case(golden, number)
    parser = DWPose(*_write_networks(case, tmp_path), threads=1)
    assert parser.providers == ("CPUExecutionProvider",)
    drawing = parser.draw(case["image"])
    assert drawing.dtype == np.uint8
    np.testing.assert_array_equal(drawing, case["pose_out"])


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"yolox_l\.onnx is missing.*models pull"):
        DWPose(tmp_path / "yolox_l.onnx", tmp_path / "pose.onnx")


def test_damaged_file_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "yolox_l.onnx"
    damaged.write_bytes(b"<html>not found</html>")
    with pytest.raises(BundleError, match=r"yolox_l\.onnx cannot be loaded.*models verify"):
        DWPose(damaged, damaged)


def test_swapped_files_are_refused_at_load(golden: Vectors, tmp_path: Path) -> None:
    detector, pose = _write_networks(_case(golden, 3), tmp_path)
    with pytest.raises(BundleError, match=r"pose\.onnx takes pictures of shape .*another network"):
        DWPose(pose, detector)


def test_network_with_other_outputs_is_refused(golden: Vectors, tmp_path: Path) -> None:
    case = dict(_case(golden, 3))
    case["simcc0_x"] = case["simcc0_x"][:, :17]
    parser = DWPose(*_write_networks(case, tmp_path))
    with pytest.raises(BundleError, match=r"\(1, 17, 576\).*another model"):
        parser.draw(case["image"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_cuda_is_never_swapped_for_the_cpu_in_silence(golden: Vectors, tmp_path: Path) -> None:
    detector, pose = _write_networks(_case(golden, 3), tmp_path)
    with pytest.raises(EngineError, match=r"cannot use CUDA for detector\.onnx.*CPUExecutionProvider.*Run DWPose on"):
        DWPose(detector, pose, device="cuda")


def _write_networks(case: Vectors, folder: Path) -> tuple[Path, Path]:
    """Write stand-ins with the true inputs and outputs.

    They answer with the measured numbers to the measured input, and with zeros to any other.
    """
    detector, pose = folder / "detector.onnx", folder / "pose.onnx"
    answers = {"output": [_detector_rows(case)[None]]}
    _write_network(detector, (1, 3, 640, 640), 8, [case["det_in_strided8"]], 0, answers)
    people = range(len(case["centers"]))
    inputs = [case[f"pose_in{person}_strided4"] for person in people]
    simcc = {f"simcc_{axis}": [case[f"simcc{person}_{axis}"] for person in people] for axis in "xy"}
    _write_network(pose, (1, 3, 384, 288), 4, inputs, WARP_TOLERANCE, simcc)
    return detector, pose


def _write_network(
    path: Path,
    input_shape: tuple[int, ...],
    stride: int,
    inputs: list[NDArray[np.float32]],
    tolerance: float,
    answers: Mapping[str, list[NDArray[np.float32]]],
) -> None:
    constants: dict[str, NDArray[Any]] = {
        "start": np.array([0, 0], np.int64),
        "end": np.array(input_shape[2:], np.int64),
        "axes": np.array([2, 3], np.int64),
        "steps": np.array([stride, stride], np.int64),
        "tolerance": np.array(tolerance, np.float32),
    }
    nodes = [helper.make_node("Slice", ["input", "start", "end", "axes", "steps"], ["seen"])]
    for n, known in enumerate(inputs):
        constants[f"known{n}"] = known
        nodes += [
            helper.make_node("Sub", ["seen", f"known{n}"], [f"difference{n}"]),
            helper.make_node("Abs", [f"difference{n}"], [f"distance{n}"]),
            helper.make_node("ReduceMax", [f"distance{n}"], [f"farthest{n}"], keepdims=0),
            helper.make_node("LessOrEqual", [f"farthest{n}", "tolerance"], [f"same{n}"]),
            helper.make_node("Cast", [f"same{n}"], [f"weight{n}"], to=TensorProto.FLOAT),
        ]
        for name, values in answers.items():
            constants[f"{name}{n}"] = values[n]
            nodes.append(helper.make_node("Mul", [f"{name}{n}", f"weight{n}"], [f"{name}_part{n}"]))
    for name in answers:
        nodes.append(helper.make_node("Sum", [f"{name}_part{n}" for n in range(len(inputs))], [name]))
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, values[0].shape) for name, values in answers.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
