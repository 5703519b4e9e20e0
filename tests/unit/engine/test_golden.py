"""The golden values that are too large to keep here: run with FASTFIT_GOLDEN=FOLDER, where the whole recordings are.

`tests/golden` holds trimmed copies, so CI compares slices of some tensors. This compares all of what was left out.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.recorded_densepose import build_network
from support.tiny_networks import make_unet, make_vae, read_meta
from unit.engine import test_plain_denoiser
from unit.engine.networks import test_unet
from unit.engine.parsers import test_densepose, test_dwpose, test_schp
from unit.engine.preprocessing import test_geometry

from fastfit_watch.engine.autoencoding import PlainVAE, decode, encode
from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.parsers import densepose_boxes, densepose_detector, dwpose, schp
from fastfit_watch.engine.parsers.densepose_network import PartPredictor
from fastfit_watch.engine.parsers.schp import LABELS, SCHP, Dataset
from fastfit_watch.engine.pixels import cover_person, to_tensor
from fastfit_watch.engine.preprocessing.geometry import adjust

Vectors = dict[str, NDArray[Any]]

KEPT = Path(__file__).parents[2] / "golden"
WHOLE = os.environ.get("FASTFIT_GOLDEN", "")
needs_whole = pytest.mark.skipif(not WHOLE, reason="the whole recordings are not here: see FASTFIT_GOLDEN")


def read(name: str) -> Vectors:
    with np.load(Path(WHOLE, name)) as stored:
        return dict(stored)


def test_every_kept_file_is_read_by_a_test() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[2].rglob("*.py"))
    names = [path.name for path in KEPT.iterdir() if path.suffix != ".md"]
    stems = {name: name.removesuffix(".npz").replace("pipeline_", "pipeline_{name}") for name in names}
    unread = [name for name in names if name not in sources and stems[name].split("{")[0] not in sources]
    assert unread == []


@needs_whole
def test_geometry_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read("geometry.npz")
    monkeypatch.setattr(test_geometry, "golden", lambda: whole)
    for index in (8, 10):
        test_geometry.test_adjust_is_exact(index)
    for feather_px in (50, 8):
        test_geometry.test_paste_back_is_exact(1, feather_px)
    for index in range(5):
        resized = Image.fromarray(whole[f"s{index}_in"]).resize((96, 128))
        np.testing.assert_array_equal(np.asarray(resized), whole[f"s{index}_default_resize_96x128"])
    assert whole["prep_labels"].tolist() == ["upper", "lower", "overall", "shoe", "bag"]
    assert [name for name, worn in zip(whole["prep_labels"], whole["prep_masks"], strict=True) if worn] == [
        name.removeprefix("prep_in_") for name in whole if name.startswith("prep_in_")
    ]
    assert {tuple(size) for size in whole["prep_sizes_wh"]} == {(384, 512)}, "what test_geometry prepares them for"


@needs_whole
def test_dwpose_with_missing_points(tmp_path: Path) -> None:
    whole = read("dwpose_draw.npz")
    number = test_dwpose.MISSING_POINTS
    test_dwpose.test_picture_reaches_the_detector_as_measured(whole, number)
    test_dwpose.test_people_are_decoded_as_measured(whole, number)
    test_dwpose.test_people_are_cut_out_as_measured(whole, number)
    test_dwpose.test_whole_drawing_is_as_measured(whole, number, tmp_path)
    for case in (0, 1, 2):
        boxes = whole[f"c{case}_boxes"]
        np.testing.assert_allclose((boxes[:, 2:] - boxes[:, :2]) * 1.25, whole[f"c{case}_scales_padded"], rtol=1e-12)
        seen = whole[f"c{case}_body_index"] >= 0
        np.testing.assert_array_equal(whole[f"c{case}_scores134"][:, :18] > dwpose._VISIBLE, seen)


@needs_whole
@pytest.mark.parametrize(("case", "dataset"), [("lip0", "lip"), ("lip1", "lip"), ("atr0", "atr")])
def test_schp_networks(case: str, dataset: Dataset) -> None:
    whole, side = read("schp.npz"), LABELS[dataset].side
    network = test_schp._empty_network(dataset)
    network.load_state_dict(test_schp._drawn_weights(whole, dataset), assign=True)
    image = whole[f"{case}_in"]
    logits = SCHP(network, dataset).predict(torch.from_numpy(schp.cut_square(image, side)[None]))
    stride = 2 if case == "lip1" else 1
    np.testing.assert_allclose(logits[:, :, ::stride, ::stride], whole[f"{case}_net_out"], rtol=0, atol=1e-4)
    *centre, width, height = whole[f"{case}_center_scale"]
    to_square = schp.square_warp(image.shape[:2], side)[0]
    np.testing.assert_allclose(to_square @ [*centre, 1], [(side - 1) / 2] * 2, rtol=0, atol=1e-9)
    np.testing.assert_allclose(to_square[0, 0] * np.array([width, height]), side - 1, rtol=1e-12)
    planes = list(schp.warp_back(schp.raise_logits(logits, side)[0].numpy(), image.shape[:2]))
    np.testing.assert_allclose(np.stack(planes, -1)[::8, ::8], whole[f"{case}_logits_strided8"], rtol=0, atol=1e-4)


@needs_whole
@pytest.mark.parametrize(("case", "dataset"), [("lip_syn0", "lip"), ("lip_syn1", "lip"), ("atr_syn0", "atr")])
def test_schp_labels(case: str, dataset: Dataset) -> None:
    whole = read("schp.npz")
    width, height = (int(side) for side in whole[f"{case}_size_wh"])
    raised = schp.raise_logits(torch.from_numpy(whole[f"{case}_lowres"].astype(np.float32)), LABELS[dataset].side)
    planes = list(schp.warp_back(raised[0].numpy(), (height, width)))
    np.testing.assert_allclose(np.stack(planes, -1)[::8, ::8], whole[f"{case}_logits_strided8"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(schp.pick_labels(iter(planes)), whole[f"{case}_argmax"])


@needs_whole
def test_unet_with_an_absent_slot_and_a_mask_of_half_a_batch() -> None:
    whole = read("unet_tiny_io.npz")
    worn = [index for index in range(5) if whole[f"ref{index}_mask"].all()]
    assert tuple(worn) == test_unet.WORN
    unet = make_unet(json.loads(str(whole["config_json"])), int(whole["fill_seed"]))
    with torch.inference_mode():
        references = ReferenceCache.join([test_unet.read_reference(unet, whole, index) for index in worn])
        noise = unet.denoise(torch.from_numpy(whole["x0_t981"]), 981, references)
    # As published, a mask for one row of a batch changes nothing; the unfused path that heeds it is not the published.
    test_unet.check(noise, whole["y_mixedmask_fused"])


def check_encoder(whole: Vectors, tolerance: float) -> None:
    """Compare mean and spread of every picture that is encoded: the covered person, and what is worn."""
    meta = read_meta(whole)
    vae = PlainVAE(make_vae(meta["vae_config"], meta["vae_fill_seed"]))
    for index in np.flatnonzero([1, *meta["ref_masks"]]):
        pixels = torch.from_numpy(whole[f"vae_in{index}"])
        mean, log_variance = np.split(whole[f"vae_moments{index}"], 2, axis=1)
        with torch.inference_mode():
            for draw in (torch.zeros, torch.ones):
                latents = (mean + float(draw(1)) * np.exp(log_variance / 2)) * 0.18215
                test_plain_denoiser.check(encode(vae, pixels, draw), latents, tolerance)


@needs_whole
@pytest.mark.parametrize("name", ["mr", "nopose", "cfg1"])
def test_pipelines(name: str) -> None:
    whole = read(f"pipeline_{name}.npz")
    meta = read_meta(whole)
    for index in range(len(meta["labels"])):
        np.testing.assert_allclose(to_tensor(whole[f"in_ref{index}"]), whole[f"vae_in{index + 1}"], rtol=0, atol=1e-6)
    check_encoder(whole, 2e-4)
    vae = PlainVAE(make_vae(meta["vae_config"], meta["vae_fill_seed"]))
    with torch.inference_mode():
        decoded = decode(vae, torch.from_numpy(whole[f"step{meta['steps'] - 1}_latents_out"]))
    # Recorded before it is brought from -1..1 to 0..1.
    test_plain_denoiser.check(decoded, whole["vae_decoded"])


@needs_whole
@pytest.mark.slow
def test_adjusted_pipeline() -> None:
    whole = read("pipeline_adjust.npz")
    meta = read_meta(whole)
    adjustment = adjust(Image.fromarray(whole["in_person"]), Image.fromarray(whole["in_mask"]), (1024, 768))
    person, mask = np.asarray(adjustment.crop), np.asarray(adjustment.crop_mask)
    pose = np.asarray(Image.fromarray(whole["in_pose"]).resize((768, 1024)))
    pixels = {"vae_in0": cover_person(person, mask, pose).numpy(), "vae_in1": to_tensor(whole["in_ref0"]).numpy()}
    check_encoder({**whole, **pixels}, 1e-3)
    run = test_plain_denoiser.replay(whole, person, mask, pose)
    assert run.schedule.timesteps == tuple(int(whole[f"step{index}_t"]) for index in range(meta["steps"]))
    test_plain_denoiser.check(run.unet_inputs[0], whole["ref_unet_in0"], 1e-3)
    test_plain_denoiser.check(run.unet_inputs[1], whole["unet_in_step0"], 1e-3)
    for index in range(meta["steps"]):
        test_plain_denoiser.check(run.schedule.predicted[index], whole[f"step{index}_eps"], 1e-3)
        test_plain_denoiser.check(run.schedule.latents[index], whole[f"step{index}_latents_out"], 1e-3)


@needs_whole
def test_densepose_branch() -> None:
    whole = read("densepose.npz")
    network = build_network(whole)
    run = test_densepose.look("small", network, whole)
    boxes = torch.from_numpy(whole["small/dp/given_boxes"])
    decoded = network.roi_heads.decoder(*run.pyramid[:4])
    pooled = densepose_boxes.roi_align([decoded[0]], [4], boxes, torch.zeros(3, dtype=torch.int64), 28)
    body, predictor = network.roi_heads.densepose_head(pooled), network.roi_heads.densepose_predictor
    coarse, fine = densepose_detector.segment_body(network, run.pyramid, boxes)
    found = {
        "pooled_c16": pooled[:, :16],
        "head_c16": body[:, :16],
        "lowres_fine_box0": predictor.index_uv_lowres(body[:1])[0],
        "coarse": coarse,
        "fine_box0": fine[0],
        "u_s4": PartPredictor.enlarge(predictor.u_lowres, body)[:, :, ::4, ::4],
        "v_s4": PartPredictor.enlarge(predictor.v_lowres, body)[:, :, ::4, ::4],
    }
    for key, tensor in found.items():
        test_densepose.assert_close(tensor, whole[f"small/dp/{key}"], 1e-5)
