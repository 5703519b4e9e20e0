"""Drawn looks kept on the training device: as pictures for the parser and the VAE, encoded for the UNet."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from fastfit_watch.mini.feed import LookFeed


class Pictures:
    """A ring of drawn looks on the device, field by field."""

    def __init__(self, feed: LookFeed, device: str, capacity: int) -> None:
        self._feed, self._device, self._capacity = feed, device, capacity
        self._chunks: list[dict[str, Tensor]] = []
        self._next = 0

    def refill(self, wait_s: float = 0.0) -> None:
        """Take chunks that are ready; past the capacity the oldest is replaced."""
        for chunk in self._feed.take_ready(self._device, wait_s):
            if len(self._chunks) < self._capacity:
                self._chunks.append(chunk)
            else:
                self._chunks[self._next % self._capacity] = chunk
                self._next += 1

    def sample(self, count: int, fields: list[str]) -> dict[str, Tensor]:
        """`count` random looks: fields as they were drawn, on the device."""
        picks = torch.randint(len(self._chunks), (max(1, count // 8),)).tolist()
        rows = torch.randint(self._chunks[0]["outfit"].shape[0], (8,), device=self._device)
        return {name: torch.cat([self._chunks[pick][name][rows] for pick in picks]) for name in fields}


class Latents:
    """Encoded looks, one list a bucket of equal outfits: the UNet's training set."""

    def __init__(self, feed: LookFeed, vae: AutoencoderKL, scale: float, device: str, capacity: int) -> None:
        self._feed, self._vae, self._scale, self._device = feed, vae, scale, device
        self._capacity = capacity  # looks in each bucket
        self._buckets: dict[int, dict[str, Tensor]] = {}
        self._counts: dict[int, int] = {}

    def refill(self, wait_s: float = 0.0) -> None:
        """Encode chunks that are ready into their buckets; full buckets overwrite their oldest looks."""
        for chunk in self._feed.take_ready(self._device, wait_s):
            encoded = self._encode_chunk(chunk)
            for code in set(chunk["outfit"].tolist()):
                self._store(code, {name: value[chunk["outfit"] == code] for name, value in encoded.items()})

    def sample(self, count: int) -> tuple[int, dict[str, Tensor]]:
        """A random outfit code, by share, and `count` of its looks as float32."""
        codes = list(self._buckets)
        filled = torch.tensor([float(min(self._counts[code], self._capacity)) for code in codes])
        code = codes[int(torch.multinomial(filled, 1))]
        rows = torch.randint(int(min(self._counts[code], self._capacity)), (count,), device=self._device)
        return code, {name: value[rows].float() for name, value in self._buckets[code].items()}

    def _store(self, code: int, looks: dict[str, Tensor]) -> None:
        if code not in self._buckets:
            self._buckets[code] = {
                name: torch.empty((self._capacity, *value.shape[1:]), dtype=value.dtype, device=self._device)
                for name, value in looks.items()
            }
            self._counts[code] = 0
        first, added = self._counts[code], len(looks["truth"])
        rows = torch.arange(first, first + added, device=self._device) % self._capacity
        for name, value in looks.items():
            self._buckets[code][name][rows] = value
        self._counts[code] += added

    @torch.no_grad()
    def _encode_chunk(self, chunk: dict[str, Tensor]) -> dict[str, Tensor]:
        person, pose = to_unit(chunk["person"]), chunk["pose"].permute(0, 3, 1, 2).float() / 255
        masks = {name: (chunk[name] >= 128).float()[:, None] for name in ("full", "worn")}
        large = {name: to_unit(chunk[name]) for name in ("truth", "cloth", "second")}
        large |= {f"{name}_masked": person * (1 - mask) + mask * pose for name, mask in masks.items()}
        small = {name: to_unit(chunk[name]) for name in ("shoe", "bag")}
        encoded = {
            f"{name}_mask": functional.interpolate(mask, scale_factor=1 / 8, mode="nearest").half()
            for name, mask in masks.items()
        }
        for pictures in (large, small):  # one pass a size
            latents = self._encode(torch.cat(list(pictures.values()))).chunk(len(pictures))
            encoded |= dict(zip(pictures, latents, strict=True))
        return encoded

    def _encode(self, pictures: Tensor) -> Tensor:
        with torch.autocast(pictures.device.type, torch.bfloat16):
            posterior = self._vae.encode(pictures).latent_dist
        latents: Tensor = (posterior.mean.float() * self._scale).half()
        return latents


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
