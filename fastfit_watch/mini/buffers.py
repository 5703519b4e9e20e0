"""Drawn looks kept on the training device: as pictures for the parser and the VAE, encoded for the UNet.

Rows lie in tensors that stay where they are and are picked by the device itself, so that a step which samples them can
be recorded.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.feed import SKIN, WHOLE_OUTFITS, LookFeed, outfit_categories

_FIRST_CHUNKS = {True: 16, False: 1}  # taken before training begins, by whether there is a GPU to encode them
# Encoded looks of each outfit, by whether there is a GPU, and by whether it is a whole outfit, as half of all are.
_OUTFIT_LOOKS = {True: {True: 12_000, False: 1_500}, False: {True: 300, False: 40}}
_CPU_LOOKS = 200  # a machine without a GPU has less memory, and draws fewer looks


class Ring:
    """Rows of equal looks, field by field; past its capacity the oldest is replaced."""

    def __init__(self, capacity: int, like: dict[str, Tensor]) -> None:
        """like: rows to take shapes, dtypes and device from."""
        self.capacity, self._next = capacity, 0
        self._fields = {
            name: torch.empty((capacity, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
            for name, rows in like.items()
        }
        self._device = next(iter(like.values())).device
        self._filled = torch.zeros((), device=self._device)

    def __len__(self) -> int:
        return min(self._next, self.capacity)

    def add(self, looks: dict[str, Tensor]) -> None:
        """Store rows."""
        added = len(next(iter(looks.values())))
        rows = torch.arange(self._next, self._next + added, device=self._device) % self.capacity
        for name, field in self._fields.items():
            field[rows] = looks[name]
        self._next += added
        self._filled.fill_(len(self))

    def sample(self, count: int, fields: Collection[str] = ()) -> dict[str, Tensor]:
        """`count` random rows, of all fields or of these."""
        rows = (torch.rand(count, device=self._device) * self._filled).long()
        return {name: self._fields[name][rows] for name in fields or self._fields}


class Pictures:
    """Drawn looks on the device as they were drawn."""

    def __init__(self, feed: LookFeed, device: str, fields: Collection[str], capacity: int) -> None:
        """fields: of a look, those that are kept. capacity: looks."""
        self._feed, self._device, self._fields = feed, device, fields
        on_gpu = device.startswith("cuda")
        self._capacity = capacity if on_gpu else min(capacity, _CPU_LOOKS)
        self._ring: Ring | None = None
        self.refill(120, _FIRST_CHUNKS[on_gpu])

    def refill(self, wait_s: float = 0.0, most: int = 2) -> None:
        """Take chunks that are ready. wait_s: how long the first may take."""
        for chunk in self._feed.take_ready(self._device, wait_s, most):
            looks = {name: chunk[name] for name in self._fields}
            if self._ring is None:
                self._ring = Ring(self._capacity, looks)
            self._ring.add(looks)

    def sample(self, count: int, fields: Collection[str]) -> dict[str, Tensor]:
        """`count` random looks, on the device."""
        if self._ring is None:
            raise RuntimeError("Nothing was drawn within two minutes.")
        return self._ring.sample(count, fields)


class Latents:
    """Encoded looks, one ring for all of equal outfits: the UNet's training set.

    Beside its latents, every look has its two masks and `emphasis`, float16 (1, h, w): how much a cell counts.
    """

    def __init__(self, feed: LookFeed, vae: AutoencoderKL, scale: float, device: str) -> None:
        """scale: of the latents."""
        self._feed, self._vae, self._scale, self._device = feed, vae, scale, device
        self._rings: dict[int, Ring] = {}
        self.refill(120, _FIRST_CHUNKS[device.startswith("cuda")])

    def refill(self, wait_s: float = 0.0, most: int = 2) -> None:
        """Encode chunks that are ready. wait_s: how long the first may take."""
        for chunk in self._feed.take_ready(self._device, wait_s, most):
            encoded, outfits = self._encode_chunk(chunk), chunk["outfit"].tolist()
            for code in set(outfits):
                looks = {name: value[chunk["outfit"] == code] for name, value in encoded.items()}
                if code not in self._rings:
                    is_whole = set(outfit_categories(code)) in WHOLE_OUTFITS
                    self._rings[code] = Ring(_OUTFIT_LOOKS[self._device.startswith("cuda")][is_whole], looks)
                self._rings[code].add(looks)

    def choose(self) -> int:
        """A random outfit code, by share of the looks there are."""
        codes = list(self._rings)
        return codes[int(torch.multinomial(torch.tensor([float(len(self._rings[code])) for code in codes]), 1))]

    def sample(self, code: int, count: int) -> dict[str, Tensor]:
        """`count` looks of an outfit as float32."""
        return {name: value.float() for name, value in self._rings[code].sample(count).items()}

    @torch.no_grad()
    def _encode_chunk(self, chunk: dict[str, Tensor]) -> dict[str, Tensor]:
        person, pose = to_unit(chunk["person"]), chunk["pose"].permute(0, 3, 1, 2).float() / 255
        masks = {name: (chunk[name] >= 128).float()[:, None] for name in ("full", "worn")}
        large = {name: to_unit(chunk[name]) for name in ("truth", "cloth", "second")}
        large |= {f"{name}_masked": person * (1 - mask) + mask * pose for name, mask in masks.items()}
        small = {name: to_unit(chunk[name]) for name in ("shoe", "bag")}
        encoded: dict[str, Tensor] = {}
        for pictures in (large, small):  # one pass a size
            latents = self._encode(torch.cat(list(pictures.values()))).chunk(len(pictures))
            encoded |= dict(zip(pictures, latents, strict=True))
        stride = person.shape[-1] // encoded["truth"].shape[-1]
        for name, mask in masks.items():
            encoded[f"{name}_mask"] = functional.interpolate(mask, scale_factor=1 / stride, mode="nearest").half()
        encoded["emphasis"] = functional.max_pool2d(emphasis(chunk["seen"]), stride).half()
        return encoded

    def _encode(self, pictures: Tensor) -> Tensor:
        posterior = self._vae.encode(pictures.to(self._vae.dtype)).latent_dist
        latents: Tensor = (posterior.mean.float() * self._scale).half()
        return latents


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def emphasis(seen: Tensor) -> Tensor:
    """How much a pixel counts, float32 (B, 1, H, W), by what it shows (uint8 (B, H, W), `seen` of a look).

    A shoe or a bag is half a percent of a picture: weighed like all else, it takes a colour between its own and the
    ground's.
    """
    worn, accessory = seen > 0, (seen > Category.DRESS.label + 1) & (seen < SKIN)
    return (1 + 2 * worn.float() + 10 * accessory.float())[:, None]
