"""Ways to a device and back: bytes arrive as they were, and a GPU is not waited for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastfit_watch.engine.transfer import download_pixels, upload, upload_pixels

DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif("not torch.cuda.is_available()")])]


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_come_back_as_they_were(device: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    pixels.flags.writeable = False  # as Pillow gives them
    there = upload_pixels(pixels, device)
    assert (there.dtype, there.device.type) == (torch.uint8, device)
    np.testing.assert_array_equal(download_pixels(there), pixels)
    np.testing.assert_array_equal(download_pixels(there.permute(1, 0, 2)), pixels.transpose(1, 0, 2))
    np.testing.assert_array_equal(download_pixels(upload_pixels(pixels[::2, :, 0], device)), pixels[::2, :, 0])


@pytest.mark.parametrize("device", DEVICES)
def test_what_was_uploaded_may_be_written_over(device: str) -> None:
    pixels = np.ones((512, 512, 3), np.uint8)
    there = upload_pixels(pixels, device)
    pixels[:] = 0
    assert bool(there.all())


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_arrive_as_they_were(device: str) -> None:
    numbers = torch.randn(3, 5)
    assert torch.equal(upload(numbers, device).cpu(), numbers)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_upload_does_not_wait_for_the_device() -> None:
    pixels, numbers, busy = np.ones((1024, 768, 3), np.uint8), torch.ones(4, 128, 96), torch.ones(8192, 8192).cuda()
    for _ in range(2):  # the first time takes pinned memory, which may wait
        for _ in range(50):
            busy @ busy
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        upload_pixels(pixels, "cuda"), upload(numbers, "cuda")
        assert not done.query()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
