"""Which attention kernel is chosen, and which are left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastfit_watch.engine.fused import attention_backends as backends
from fastfit_watch.engine.fused.attention_backends import Attention, Kernel, Shape


def test_the_preferred_kernel_must_be_beaten_clearly() -> None:
    seconds = {Kernel.CUDNN: 1.0, Kernel.FLASH: 0.95, Kernel.EFFICIENT: 3.0}
    assert backends._preferred(seconds) is Kernel.CUDNN
    assert backends._preferred(seconds | {Kernel.FLASH: 0.5}) is Kernel.FLASH
    assert backends._preferred({}) is Kernel.DEFAULT


def test_product_attention_is_attention() -> None:
    random = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, 7, 16, generator=random)
    keys, values = (torch.randn(1, 2, 11, 16, generator=random) for _ in range(2))
    expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
    torch.testing.assert_close(Attention()(query, keys, values), expected)
    if torch.cuda.is_available():
        query, keys, values = (tensor.cuda() for tensor in (query, keys, values))
        torch.testing.assert_close(backends._product(query, keys, values, None).cpu(), expected, rtol=0, atol=1e-4)


def test_a_damaged_memory_of_choices_is_no_harm(tmp_path: Path) -> None:
    memory = tmp_path / "choices.json"
    for text in ("", "[1]", "{"):
        memory.write_text(text)
        assert backends._read(memory) == {}
    backends._write(memory, {"card": {"40x12288": "cudnn"}})
    assert backends._read(memory) == {"card": {"40x12288": "cudnn"}}
    assert list(tmp_path.iterdir()) == [memory]


def test_a_kernel_chosen_earlier_must_still_run() -> None:
    shape, device = Shape(40, 8), torch.device("cpu")
    assert not backends._runs(Kernel.HOPPER, shape, device, torch.float32)
    assert backends._runs(Kernel.DEFAULT, shape, device, torch.float32)


@pytest.mark.parametrize("trouble", [ImportError("libcuda"), OSError("libnvrtc"), RuntimeError("driver")])
def test_a_kernel_that_fails_is_left_out(trouble: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> torch.Tensor:
        raise trouble

    kernels = {**backends._RUN, Kernel.HOPPER: fails}
    monkeypatch.setattr(backends, "_RUN", kernels)
    assert not backends._runs(Kernel.HOPPER, Shape(40, 8), torch.device("cpu"), torch.float32)
