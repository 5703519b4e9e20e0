"""DensePose against values recorded from the original network with seeded weights (see tests/golden/README.md)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.recorded_densepose import GOLDEN, build_network, read_golden, read_key_table

from fastfit_watch.domain.errors import BundleError, EngineError
from fastfit_watch.engine.parsers import densepose_boxes, densepose_detector
from fastfit_watch.engine.parsers.densepose import DensePose, restore_size, shrink_picture
from fastfit_watch.engine.parsers.densepose_detector import DetectorSettings
from fastfit_watch.engine.parsers.densepose_detectron2 import Detectron2DensePose
from fastfit_watch.engine.parsers.densepose_network import DensePoseNetwork, PartPredictor

SETTINGS = {"small": DetectorSettings(shortest_side_px=192), "full": DetectorSettings()}
CPU = torch.device("cpu")

Golden = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """The backbone's view of the golden picture at one working size."""

    name: str
    size: tuple[int, int]
    batch: torch.Tensor
    features: Mapping[str, torch.Tensor]

    @property
    def pyramid(self) -> list[torch.Tensor]:
        return [self.features[f"p{level}"] for level in range(2, 7)]


@pytest.fixture(scope="module")
def golden() -> Golden:
    return read_golden()


@pytest.fixture(scope="module")
def key_table() -> dict[str, list[int]]:
    return read_key_table()


@pytest.fixture(scope="module")
def network(golden: Golden) -> DensePoseNetwork:
    return build_network(golden)


def look(name: str, network: DensePoseNetwork, golden: Golden) -> Run:
    image = golden["image_bgr"]
    size = densepose_detector.working_size((image.shape[0], image.shape[1]), SETTINGS[name])
    batch = densepose_detector.normalise_picture(densepose_detector.resize_picture(image, size), CPU)
    features = {"stem": network.backbone.bottom_up.stem(batch)}
    features |= zip(("res2", "res3", "res4", "res5"), network.backbone.bottom_up(batch), strict=True)
    features |= zip(("p2", "p3", "p4", "p5", "p6"), network.backbone(batch), strict=True)
    return Run(name, size, batch, features)


@pytest.fixture(scope="module")
def small(network: DensePoseNetwork, golden: Golden) -> Run:
    return look("small", network, golden)


@pytest.fixture(scope="module")
def full(network: DensePoseNetwork, golden: Golden) -> Run:
    return look("full", network, golden)


@pytest.fixture(params=["small", pytest.param("full", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def given_boxes(golden: Golden) -> torch.Tensor:
    return torch.from_numpy(golden["small/dp/given_boxes"])


def assert_close(actual: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    assert tuple(actual.shape) == expected.shape
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=tolerance)


def golden_tensor(golden: Golden, key: str) -> torch.Tensor:
    return torch.from_numpy(golden[key])


def test_network_has_exactly_the_released_names_and_shapes(key_table: dict[str, list[int]]) -> None:
    with torch.device("meta"):
        state = DensePoseNetwork().state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == key_table


def test_seeded_weights_are_those_of_the_recording(network: DensePoseNetwork, golden: Golden) -> None:
    state = network.state_dict()
    first = np.stack([state[str(key)].flatten()[:8].numpy() for key in golden["w/check_keys"]])
    np.testing.assert_allclose(first, golden["w/check_first8"], rtol=0, atol=1e-6)
    sums = [state[name].double().sum().item() for name in sorted(state)]
    np.testing.assert_allclose(sums, golden["w/check_sums"], rtol=0, atol=1e-2)


@pytest.mark.parametrize(("bins", "count"), [(7, 8), (28, 3)])
def test_roi_align(golden: Golden, bins: int, count: int) -> None:
    rois = golden_tensor(golden, "unit/roi_align/rois")[:count]
    maps = list(golden_tensor(golden, "unit/roi_align/feat"))
    pooled = densepose_boxes.roi_align(maps, [4, 4], rois[:, 1:], rois[:, 0].long(), bins)
    assert_close(pooled, golden[f"unit/roi_align/out{bins}_sr2_aligned0"], 1e-5)


def test_roi_align_is_not_the_half_pixel_kind(golden: Golden) -> None:
    shifted, legacy = golden["unit/roi_align/out7_sr2_aligned1"], golden["unit/roi_align/out7_sr2_aligned0"]
    assert np.abs(shifted - legacy).max() > 0.1


def test_roi_align_reads_maps_of_different_sizes_and_no_boxes() -> None:
    maps = [torch.full((2, 8, 6), 1.0), torch.full((2, 3, 5), 7.0)]
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]])
    pooled = densepose_boxes.roi_align(maps, [4, 8], boxes, torch.tensor([1, 0]), 2)
    assert pooled[:, :, 0, 0].tolist() == [[7.0, 7.0], [1.0, 1.0]]
    assert densepose_boxes.roi_align(maps, [4, 8], boxes[:0], torch.tensor([1, 0])[:0], 2).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_suppression(golden: Golden, threshold: float) -> None:
    boxes, scores = golden_tensor(golden, "unit/nms/boxes"), golden_tensor(golden, "unit/nms/scores")
    kept = densepose_boxes.suppress_overlaps(boxes, scores, threshold)
    assert kept.tolist() == golden[f"unit/nms/keep_{threshold}"].tolist()
    groups = golden_tensor(golden, "unit/nms/idxs")
    kept = densepose_boxes.suppress_within_groups(boxes, scores, groups, threshold)
    assert kept.tolist() == golden[f"unit/nms/keep_batched_{threshold}"].tolist()


def test_suppression_of_nothing() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert densepose_boxes.suppress_within_groups(torch.empty(0, 4), torch.empty(0), none, 0.5).tolist() == []


@pytest.mark.parametrize(("key", "weights"), [("w1", (1.0, 1.0, 1.0, 1.0)), ("w10", (10.0, 10.0, 5.0, 5.0))])
def test_decode_boxes(golden: Golden, key: str, weights: tuple[float, float, float, float]) -> None:
    boxes, deltas = golden_tensor(golden, "unit/decode/boxes"), golden_tensor(golden, "unit/decode/deltas")
    assert_close(densepose_boxes.decode_boxes(boxes, deltas, weights), golden[f"unit/decode/out_{key}"], 1e-3)


def test_choose_levels(golden: Golden) -> None:
    levels = densepose_boxes.choose_levels(golden_tensor(golden, "unit/levels/boxes"))
    assert levels.tolist() == golden["unit/levels/out"].tolist()


def test_anchors(golden: Golden) -> None:
    shapes = torch.stack([densepose_boxes.anchor_shapes(size) for size in (32, 64, 128, 256, 512)])
    assert_close(shapes, golden["unit/anchors/cell"], 1e-4)
    assert_close(densepose_boxes.grid_anchors(32, 4, (3, 4), CPU), golden["unit/anchors/p2_3x4"], 1e-4)
    assert_close(densepose_boxes.grid_anchors(64, 8, (2, 2), CPU), golden["unit/anchors/p3_2x2"], 1e-4)


def test_working_sizes(golden: Golden) -> None:
    sizes = [
        densepose_detector.working_size((h, w), DetectorSettings()) for h, w in golden["unit/resize/in_hw"].tolist()
    ]
    assert [list(size) for size in sizes] == golden["unit/resize/out_hw"].tolist()


def test_network_input(run: Run, golden: Golden) -> None:
    assert list(run.size) == golden[f"{run.name}/resized_hw"].tolist()
    assert list(run.batch.shape[2:]) == golden[f"{run.name}/padded_hw"].tolist()
    assert not run.batch[0, :, run.size[0] :].any()


def test_resized_and_normalised_picture(small: Run, golden: Golden) -> None:
    resized = densepose_detector.resize_picture(golden["image_bgr"], small.size)
    np.testing.assert_array_equal(resized, golden["small/resized_bgr"])
    assert_close(small.batch[0, :, :40:8, :40:8], golden["small/input_norm_slice"], 1e-5)


@pytest.mark.parametrize("feature", ["stem", "res2", "res3", "res4", "res5", "p2", "p3", "p4", "p5", "p6"])
def test_features(run: Run, golden: Golden, feature: str) -> None:
    actual, key = run.features[feature][0], f"{run.name}/feat/{feature}"
    assert_close(actual[:8, :16, :16], golden[f"{key}/slice"], 1e-5)
    means = golden[f"{key}/mean"]
    assert_close(actual.mean(dim=(1, 2))[: len(means)], means, 1e-5)
    wide = actual.double()
    assert_close(torch.stack((wide.mean(), wide.std(), wide.min(), wide.max())), golden[f"{key}/stat"], 1e-5)


def test_proposal_head(small: Run, network: DensePoseNetwork, golden: Golden) -> None:
    for level, features in enumerate(small.pyramid, start=2):
        logits, deltas = network.proposal_generator.rpn_head(features)
        assert_close(logits[0], golden[f"small/rpn/p{level}/logits"], 1e-5)
        assert_close(deltas[0], golden[f"small/rpn/p{level}/deltas"], 1e-5)


def test_proposals(run: Run, network: DensePoseNetwork, golden: Golden) -> None:
    proposals = densepose_detector.propose(network, run.pyramid, run.size)
    assert len(proposals.boxes) == golden[f"{run.name}/proposals/count"]
    assert densepose_boxes.choose_levels(proposals.boxes).tolist() == golden[f"{run.name}/box/levels"].tolist()
    boxes, logits = golden[f"{run.name}/proposals/boxes"], golden[f"{run.name}/proposals/logits"]
    assert_close(proposals.logits[: len(logits)], logits, 1e-5)
    actual = proposals.boxes[: len(boxes)].clone()
    if run.name == "small":
        # Two rows have exactly equal logits, so either may come first.
        assert logits[262] == logits[263]
        if abs(actual[262, 0].item() - boxes[262, 0]) > 1e-3:
            actual[[262, 263]] = actual[[263, 262]]
    assert_close(actual, boxes, 1e-3)


def test_unusable_proposals_are_dropped() -> None:
    outside, empty, endless = [20.0, 0, 30, 5], [3.0, 3, 3, 9], [float("-inf"), 4, 9, 8]
    boxes = torch.tensor([[0.0, 0, 5, 5], [float("nan"), 0, 5, 5], outside, empty, endless, [-4, -4, 99, 6]])
    found = densepose_detector.choose_proposals(boxes, torch.arange(6.0), torch.zeros(6, dtype=torch.int64), (8, 10))
    assert found.boxes.tolist() == [[0, 0, 10, 6], [0, 0, 5, 5]]
    assert found.logits.tolist() == [5, 0]


def test_box_head(small: Run, network: DensePoseNetwork, golden: Golden) -> None:
    boxes = golden_tensor(golden, "small/proposals/boxes")
    maps = [features[0] for features in small.pyramid[:4]]
    pooled = densepose_boxes.roi_align(maps, (4, 8, 16, 32), boxes, densepose_boxes.choose_levels(boxes), 7)
    assert_close(pooled[:4, :32], golden["small/box/pooled_first4_c32"], 1e-5)
    assert_close(network.roi_heads.box_head(pooled[:8]), golden["small/box/fc2_first8"], 1e-5)
    logits, deltas = densepose_detector.score_boxes(network, small.pyramid, boxes)
    assert_close(logits, golden["small/box/cls_logits"], 5e-5)
    assert_close(deltas, golden["small/box/deltas"], 5e-5)


def test_people_chosen_from_given_scores(golden: Golden) -> None:
    logits, deltas = golden_tensor(golden, "small/box/cls_logits"), golden_tensor(golden, "small/box/deltas")
    boxes = densepose_boxes.decode_boxes(golden_tensor(golden, "small/proposals/boxes"), deltas, (10.0, 10.0, 5.0, 5.0))
    boxes = densepose_boxes.clip_boxes(boxes, (246, 192))
    chosen = densepose_detector.choose_people(boxes, logits.softmax(dim=1)[:, 0], 0.8)
    assert chosen.tolist() == golden["small/det/proposal_index"].tolist()


def test_people(run: Run, network: DensePoseNetwork, golden: Golden) -> None:
    people = densepose_detector.find_people(network, run.pyramid, run.size, 0.8)
    assert_close(people.boxes, golden[f"{run.name}/det/boxes"], 1e-3)
    assert_close(people.scores, golden[f"{run.name}/det/scores"], 1e-5)
    final = densepose_detector.rescale_boxes(people.boxes, run.size, (150, 117))
    assert_close(final, golden[f"{run.name}/final/boxes"], 1e-3)
    assert_close(people.scores, golden[f"{run.name}/final/scores"], 1e-5)


def test_decoder(run: Run, network: DensePoseNetwork, golden: Golden) -> None:
    decoded = network.roi_heads.decoder(*run.pyramid[:4])[0]
    part = decoded[:16, ::2, ::2] if run.name == "small" else decoded[:8, :16, :16]
    assert_close(part, golden[f"{run.name}/decoder/slice"], 1e-5)
    assert_close(decoded.mean(dim=(1, 2))[:64], golden[f"{run.name}/decoder/mean"], 1e-5)
    assert_close(torch.stack((decoded.mean(), decoded.std())).double(), golden[f"{run.name}/decoder/stat"], 1e-5)


def test_body_branch(small: Run, network: DensePoseNetwork, golden: Golden, given_boxes: torch.Tensor) -> None:
    heads = network.roi_heads
    decoded = heads.decoder(*small.pyramid[:4])
    pooled = densepose_boxes.roi_align([decoded[0]], [4], given_boxes, torch.zeros(3, dtype=torch.int64), 28)
    body = heads.densepose_head(pooled)
    predictor = heads.densepose_predictor
    assert_close(pooled[:, :16:4], golden["small/dp/pooled_c16_s4"], 1e-5)
    assert_close(body[:, :16:4], golden["small/dp/head_c16_s4"], 1e-5)
    lowres = predictor.index_uv_lowres(body[:1])[0]
    assert_close(lowres[:, ::4, ::4], golden["small/dp/lowres_fine_box0_s4"], 1e-5)
    for name in ("u", "v"):
        surface = PartPredictor.enlarge(predictor.get_submodule(f"{name}_lowres"), body[:1])[0]
        assert_close(surface[:, ::4, ::4], golden[f"small/dp/{name}_box0_s4"], 1e-5)


def test_part_maps_of_given_boxes(
    small: Run, network: DensePoseNetwork, golden: Golden, given_boxes: torch.Tensor
) -> None:
    coarse, fine = densepose_detector.segment_body(network, small.pyramid, given_boxes)
    assert_close(coarse[:, :, ::4, ::4], golden["small/dp/coarse_s4"], 1e-5)
    assert_close(fine[0, :, ::4, ::4], golden["small/dp/fine_box0_s4"], 1e-5)
    assert_close(fine[1:, :, ::4, ::4], golden["small/dp/fine_box12_s4"], 1e-5)
    for box in range(3):
        expected = golden[f"small/dp/given_labels_{box}"]
        labels = densepose_detector.label_parts(coarse[box], fine[box], (expected.shape[0], expected.shape[1]))
        assert (labels == expected).mean() >= 0.999
    assert len(np.unique(golden["small/dp/given_labels_0"])) == 24


def test_part_maps_of_people(run: Run, network: DensePoseNetwork, golden: Golden) -> None:
    people = densepose_detector.find_people(network, run.pyramid, run.size, 0.8)
    boxes = densepose_detector.rescale_boxes(people.boxes, run.size, (150, 117))
    expected = [golden[f"{run.name}/final/labels_{i}"] for i in range(8 if run.name == "small" else 4)]
    coarse, fine = densepose_detector.segment_body(network, run.pyramid, people.boxes[: len(expected)])
    for i, labels in enumerate(expected):
        canvas = densepose_detector.paint_body(coarse[i], fine[i], boxes[i], (150, 117))
        left, top = int(boxes[i, 0]), int(boxes[i, 1])
        assert (canvas[top : top + labels.shape[0], left : left + labels.shape[1]] == labels).mean() >= 0.999
        assert np.count_nonzero(canvas) == pytest.approx(np.count_nonzero(labels), rel=0.001)


@pytest.mark.parametrize("name", ["small", pytest.param("full", marks=pytest.mark.slow)])
def test_picture_to_label_map(network: DensePoseNetwork, golden: Golden, name: str) -> None:
    expected = golden[f"{name}/final/canvas_first"]
    labels = DensePose(network, SETTINGS[name]).label(golden["image_bgr"][:, :, ::-1])
    assert labels.dtype == np.uint8
    assert (labels == expected).mean() >= 0.999
    assert labels.any()


def test_no_one_found_gives_an_empty_map(network: DensePoseNetwork, golden: Golden) -> None:
    unreachable = DetectorSettings(shortest_side_px=64, score_threshold=1.0)
    labels = DensePose(network, unreachable).label(golden["image_bgr"][:, :, ::-1])
    assert labels.shape == (150, 117)
    assert not labels.any()


def test_shorter_float_type_still_runs(network: DensePoseNetwork, golden: Golden) -> None:
    with torch.device("meta"):
        short = DensePoseNetwork()
    short.load_state_dict({name: tensor.bfloat16() for name, tensor in network.state_dict().items()}, assign=True)
    labels = DensePose(short, SETTINGS["small"]).label(golden["image_bgr"][:, :, ::-1])
    assert labels.shape == (150, 117)
    assert labels.any()


@pytest.mark.parametrize("case", [0, 1, 2])
def test_logits_painted_into_the_picture(case: int) -> None:
    with np.load(GOLDEN / "densepose_paste.npz") as arrays:
        paste = dict(arrays)
    # Case 2 is a box less than a pixel wide: its logits are never read, so those of case 0 stand in.
    logits = 0 if case == 2 else case
    coarse, fine = (torch.from_numpy(paste[f"c{logits}_{kind}"][0]).float() for kind in ("coarse", "fine"))
    expected, full = paste[f"c{case}_labels_small"], paste[f"c{case}_out"]
    box = torch.from_numpy(paste[f"c{case}_box_xyxy"])
    labels = densepose_detector.paint_body(coarse, fine, box, (expected.shape[0], expected.shape[1]))
    assert (labels == expected).mean() >= 0.999
    assert (restore_size(labels, (full.shape[0], full.shape[1])) == full).mean() >= 0.999
    assert bool(labels.any()) == (case != 2)


def test_large_pictures_are_shrunk_and_turned_to_bgr() -> None:
    image = np.zeros((1024, 768, 3), dtype=np.uint8)
    image[:, :, 0] = 200
    shrunk = shrink_picture(image)
    assert shrunk.shape == (512, 384, 3)
    assert shrunk[0, 0].tolist() == [0, 0, 200]
    assert shrink_picture(image[:512, :400]).shape == (512, 400, 3)


def test_detectron2_says_how_to_install_it(tmp_path: Path) -> None:
    if find_spec("detectron2") and find_spec("densepose"):
        pytest.skip("detectron2 is installed here")
    with pytest.raises(EngineError, match="not installed") as caught:
        Detectron2DensePose.load(tmp_path / "model.pkl", "cpu")
    assert "https://github.com/facebookresearch/detectron2" in caught.value.hint
    assert "'detectron2-densepose @ git+https://github.com/facebookresearch/detectron2@" in caught.value.hint


class StandInSettings:
    """Settings as detectron2 takes them: a list of dotted names and values."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def merge_from_list(self, settings: list[Any]) -> None:
        self.given |= dict(zip(settings[::2], settings[1::2], strict=True))


class StandInModel(torch.nn.Module):
    """The built-in network behind detectron2's contract, with a constant among its weights as some versions have."""

    def __init__(self, settings: StandInSettings) -> None:
        super().__init__()
        self.settings = settings.given
        network = DensePoseNetwork()
        self.backbone, self.proposal_generator = network.backbone, network.proposal_generator
        self.roi_heads = network.roi_heads
        self.register_buffer("pixel_mean", torch.full((3, 1, 1), 7.0))

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (given,) = inputs
        seen_size, size = tuple(given["image"].shape[1:]), (given["height"], given["width"])
        batch = densepose_detector.normalise_picture(given["image"].permute(1, 2, 0).numpy(), CPU)
        network = cast("DensePoseNetwork", self)
        pyramid = self.backbone(batch)
        limit = self.settings["MODEL.ROI_HEADS.SCORE_THRESH_TEST"]
        people = densepose_detector.find_people(network, pyramid, seen_size, limit)
        coarse, fine = densepose_detector.segment_body(network, pyramid, people.boxes)
        boxes = densepose_detector.rescale_boxes(people.boxes, seen_size, size)
        return [{"instances": StandInPeople(boxes, coarse, fine)}]


class StandInPeople:
    """What detectron2 says of the people it found."""

    def __init__(self, boxes: torch.Tensor, coarse: torch.Tensor, fine: torch.Tensor) -> None:
        self.pred_boxes = SimpleNamespace(tensor=boxes)
        self.pred_densepose = SimpleNamespace(coarse_segm=coarse, fine_segm=fine)

    def __len__(self) -> int:
        return len(self.pred_boxes.tensor)


def install_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """detectron2 as far as it is called; the real one builds from its git only."""
    parts: dict[str, dict[str, object]] = {
        "detectron2": {},
        "detectron2.config": {"get_cfg": StandInSettings},
        "detectron2.modeling": {"build_model": StandInModel},
        "densepose": {"add_densepose_config": lambda settings: settings.given.update({"densepose": True})},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def test_what_detectron2_finds_is_labelled_as_the_builtin_network_labels_it(
    network: DensePoseNetwork, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_stand_in(monkeypatch)
    path = tmp_path / "model.safetensors"
    save_file(dict(network.state_dict()), path)
    loaded = Detectron2DensePose.load(path, "cpu")
    picture = golden["image_bgr"][:, :, ::-1]
    labels = Detectron2DensePose(loaded.network, SETTINGS["small"]).label(picture)
    assert labels.any()
    assert np.array_equal(labels, DensePose(network, SETTINGS["small"]).label(picture))
    assert loaded.network.state_dict()["pixel_mean"].flatten().tolist() == [7.0] * 3, "its own constants stay"
    settings = loaded.network.settings
    assert isinstance(settings, dict)
    # What makes this network unlike detectron2's defaults, by the DensePose specification, sections 1 and 5.
    assert settings["MODEL.ROI_HEADS.SCORE_THRESH_TEST"] == 0.8
    assert settings["MODEL.ROI_BOX_HEAD.POOLER_TYPE"] == settings["MODEL.ROI_DENSEPOSE_HEAD.POOLER_TYPE"] == "ROIAlign"
    assert settings["MODEL.ANCHOR_GENERATOR.SIZES"] == [[32], [64], [128], [256], [512]]
    assert (settings["MODEL.ROI_HEADS.NUM_CLASSES"], settings["MODEL.DEVICE"], settings["densepose"]) == (
        1,
        "cpu",
        True,
    )


def test_weights_of_another_network_are_refused_by_detectron2s_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_stand_in(monkeypatch)
    save_file({"backbone.fpn_lateral2.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match="do not fit DensePose R_50_FPN_s1x"):
        Detectron2DensePose.load(tmp_path / "model.safetensors", "cpu")
