"""The UNet and its reference attention, against recorded vectors (FastFit inference specification, section 1.9)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.tiny_networks import GOLDEN, Vectors, make_unet, read_vectors
from torch import Tensor

from fastfit_watch.engine.networks.reference_attention import KeysValues, ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet

TOLERANCE = 5e-5
WORN = (0, 1, 3, 4)  # reference 2 has mask 0: an absent slot


@pytest.fixture(scope="module")
def golden() -> Vectors:
    return read_vectors("unet_tiny_io.npz")


@pytest.fixture(scope="module")
def unet(golden: Vectors) -> FastFitUNet:
    return make_unet(json.loads(str(golden["config_json"])), int(golden["fill_seed"]))


@pytest.fixture(scope="module")
def caches(unet: FastFitUNet, golden: Vectors) -> dict[int, ReferenceCache]:
    return {index: read_reference(unet, golden, index) for index in WORN}


@pytest.fixture(scope="module")
def references(caches: dict[int, ReferenceCache]) -> ReferenceCache:
    return ReferenceCache.join(list(caches.values()))


def read_reference(unet: FastFitUNet, golden: Vectors, index: int) -> ReferenceCache:
    label = torch.from_numpy(golden[f"ref{index}_label"])
    return unet.read_reference(torch.from_numpy(golden[f"ref{index}_latent"]), label)


def check(actual: Tensor, expected: NDArray[Any], tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=tolerance)


def check_cache(cache: ReferenceCache, golden: Vectors) -> None:
    """Compare every layer's keys and values with the recorded sums, first tokens and, where recorded, all tokens."""
    names = {name.split("/", 1)[1] for name in golden if name.startswith("kv_chk/")}
    assert {f"{layer}/{kind}" for layer in cache.layers for kind in "KV"} == names
    for name in names:
        layer, kind = name.split("/")
        tensor = cache.layers[layer].keys if kind == "K" else cache.layers[layer].values
        mean, deviation, total, *shape = golden[f"kv_chk/{name}"]
        assert list(tensor.shape[1:]) == shape
        numbers = tensor.double()
        # The recorded deviation is the population's or the sample's; at these sizes both agree to four digits.
        assert float(numbers.mean()) == pytest.approx(mean, abs=TOLERANCE)
        assert float(numbers.std()) == pytest.approx(deviation, rel=1e-3)
        assert float(numbers.abs().sum()) == pytest.approx(total, rel=1e-5)
        check(tensor[0, 0, 0], golden[f"kv_head/{name}"])
        if f"kv_full/{name}" in golden:
            check(tensor, golden[f"kv_full/{name}"])


def test_released_names_and_shapes() -> None:
    released = json.loads((GOLDEN / "unet_keys.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        unet = FastFitUNet.from_config_dict(released["config"])
    assert {name: list(value.shape) for name, value in unet.state_dict().items()} == released["shapes"]
    assert sum(value.numel() for value in unet.parameters()) == released["num_params"]
    assert unet.config.cross_attention_dim is None


def test_entries_unknown_to_diffusers_are_left_out(golden: Vectors) -> None:
    config = json.loads(str(golden["config_json"])) | {"_class_name": "Other", "max_seq_len": 10}
    assert FastFitUNet.from_config_dict(config).config.layers_per_block == 2


@pytest.mark.parametrize("index", WORN)
def test_reference_pass_output(unet: FastFitUNet, golden: Vectors, index: int) -> None:
    latents, label = (torch.from_numpy(golden[f"ref{index}_{part}"]) for part in ("latent", "label"))
    check(unet(latents, labels=label), golden[f"ref{index}_unet_out"])


def test_reference_keys_and_values(references: ReferenceCache, golden: Vectors) -> None:
    check_cache(references, golden)
    assert references.tokens == 16 * 16 + 8 * 8 + 8 * 16 + 10 * 14
    assert references.nbytes == sum(
        2 * 4 * 2 * int(np.prod(golden[f"kv_chk/{layer}/K"][3:])) for layer in references.layers
    )


@pytest.mark.parametrize("timestep", [981, 541, 21])
@pytest.mark.parametrize("case", [0, 1])
def test_denoise(unet: FastFitUNet, golden: Vectors, references: ReferenceCache, case: int, timestep: int) -> None:
    noise = unet.denoise(torch.from_numpy(golden[f"x{case}_t{timestep}"]), timestep, references)
    check(noise, golden[f"y{case}_t{timestep}"])
    check(noise, golden[f"y{case}_t{timestep}_unfused"], 5e-6)


def test_denoise_without_references(unet: FastFitUNet, golden: Vectors) -> None:
    check(unet.denoise(torch.from_numpy(golden["x0_t981"]), 981, None), golden["y_norefs"])


def test_timestep_as_a_tensor_of_rows(unet: FastFitUNet, golden: Vectors, references: ReferenceCache) -> None:
    check(unet.denoise(torch.from_numpy(golden["x0_t541"]), torch.tensor([541, 541]), references), golden["y0_t541"])


def test_order_of_references_is_rounding_only(
    unet: FastFitUNet, golden: Vectors, caches: dict[int, ReferenceCache]
) -> None:
    swapped = ReferenceCache.join([caches[index] for index in reversed(WORN)])
    check(unet.denoise(torch.from_numpy(golden["x0_t981"]), 981, swapped), golden["y0_t981"])


def test_a_missing_reference_shows(unet: FastFitUNet, golden: Vectors, caches: dict[int, ReferenceCache]) -> None:
    fewer = ReferenceCache.join([caches[index] for index in WORN[1:]])
    noise = unet.denoise(torch.from_numpy(golden["x0_t981"]), 981, fewer)
    assert float((noise - torch.from_numpy(golden["y0_t981"])).abs().max()) > 100 * TOLERANCE


def test_calls_leave_nothing_behind(unet: FastFitUNet, golden: Vectors, references: ReferenceCache) -> None:
    sample = torch.from_numpy(golden["x0_t981"])
    before = unet.denoise(sample, 981, None)
    unet.denoise(sample, 981, references)
    read_reference(unet, golden, 0)
    assert torch.equal(unet.denoise(sample, 981, None), before)


def test_gradients_reach_the_reference_layers(golden: Vectors) -> None:
    unet = make_unet(json.loads(str(golden["config_json"])), int(golden["fill_seed"])).requires_grad_(True)
    unet.denoise(torch.from_numpy(golden["x0_t981"]), 981, read_reference(unet, golden, 1)).square().mean().backward()
    for layer in (unet.condition_conv_in.weight, unet.class_embedding.weight, unet.conv_in.weight):
        assert float(layer.grad.abs().max()) > 0


def test_join_wants_a_cache() -> None:
    with pytest.raises(ValueError, match="nothing to join"):
        ReferenceCache.join([])


def test_join_keeps_parts_side_by_side() -> None:
    one = ReferenceCache({"layer": KeysValues(torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4))})
    two = ReferenceCache({"layer": KeysValues(torch.full((1, 2, 5, 4), 7.0), torch.full((1, 2, 5, 4), 8.0))})
    joined = ReferenceCache.join([one, two]).layers["layer"]
    assert joined.keys[0, 0, :, 0].tolist() == [0.0] * 3 + [7.0] * 5
    assert joined.values[0, 1, :, 3].tolist() == [1.0] * 3 + [8.0] * 5


@pytest.mark.slow
def test_real_size() -> None:
    """The released configuration, 815 million recipe weights: run with `pytest -m slow`; needs 5 GB of memory."""
    golden = read_vectors("unet_real_io.npz")
    config = json.loads((GOLDEN / "unet_keys.json").read_text(encoding="utf-8"))["config"]
    unet = make_unet(config, int(golden["fill_seed"]))
    references = ReferenceCache.join([read_reference(unet, golden, index) for index in (0, 1)])
    check_cache(references, golden)
    check(unet.denoise(torch.from_numpy(golden["x"]), int(golden["t"]), references), golden["y"])
