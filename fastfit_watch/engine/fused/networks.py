"""The quick form of a bundle's networks: what an engine uses on the first rung of the memory ladder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fastfit_watch.engine.fused import kernels
from fastfit_watch.engine.fused.attention_backends import Attention, Shape
from fastfit_watch.engine.fused.attention_buffers import SPARE_CHANNELS
from fastfit_watch.engine.fused.denoiser import DenoiseBatch, Denoiser
from fastfit_watch.engine.fused.unet import FusedUNet
from fastfit_watch.engine.fused.vae import FusedVAE
from fastfit_watch.engine.measurement import usable_bytes
from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.noise import Noise
from fastfit_watch.engine.noise_schedule import NoiseSchedule, OnStep
from fastfit_watch.engine.pixels import Size

Pair = tuple[ReferenceCache, ReferenceCache]

_USUAL_RATIO = 3  # keys for each query in a look of two garments
_ROOMY_BYTES = 20 * 2**30  # a device that can spare the memory of a recorded VAE


class FusedNetworks:
    """Fused networks, the attention kernels chosen for them, and the loop. Shares its weights with the plain ones."""

    def __init__(self, unet: FastFitUNet, vae: AutoencoderKL) -> None:
        for network in (unet, vae):
            network.to(memory_format=torch.channels_last)
        self.attention = Attention()
        self.unet = FusedUNet(unet, self.attention)
        self.vae = FusedVAE(vae, self.attention, records=usable_bytes(unet.device) >= _ROOMY_BYTES)
        self.denoiser = Denoiser(self.unet)
        device = self.unet.device
        on_gpu = device.type == "cuda"
        # One stream for each of the two threads: a look is prepared beside the steps of another, not between them.
        self.preparing, self.sampling = (
            torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
            for _ in range(2)
        )

    @torch.inference_mode()
    def warm_up(self, person_size: Size, memory: Path | None) -> None:
        """Try the fused kernels and choose attention kernels for pictures of (height, width). On a GPU, about a second.

        memory : where earlier choices are kept; see `Attention.learn`.
        """
        kernels.has_triton(self.unet.device)
        self.attention.learn(self._attention_shapes(person_size), self.unet.device, self.unet.dtype, memory)

    @property
    def kept_bytes(self) -> int:
        """Memory that is kept between looks."""
        return self.denoiser.kept_bytes + self.unet.kept_bytes + self.vae.kept_bytes

    def drop_caches(self) -> None:
        """Give back all memory that is kept between looks; the next look of each shape begins anew."""
        for part in (self.denoiser, self.unet, self.vae):
            part.drop_caches()

    def release(self) -> None:
        """Let go of all weights and memory; nothing here may be used afterwards. They stay with the plain networks."""
        self.drop_caches()
        del self.unet, self.vae, self.denoiser

    def denoise(
        self,
        schedule: NoiseSchedule,
        condition: Tensor,
        references: Sequence[Sequence[Pair]],
        guidance: float,
        noise: Sequence[Noise],
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Run the loop for one look, or for several of equal shapes; see `Denoiser.run`."""
        return self.denoiser.run(schedule, DenoiseBatch(condition, references, noise, guidance), on_step)

    def _attention_shapes(self, person_size: Size) -> Iterator[tuple[Shape, int, int]]:
        height, width = (side // self.vae.stride for side in person_size)
        merged = {name for name, kinds in self.unet.alike((height, width)).items() if kinds.is_worth_it}
        seen = set()
        for name, layer in self.unet.layer_shapes((height, width)).items():
            head_size = layer.channels // layer.heads
            calls = [(Shape(head_size, layer.tokens), 2 * layer.heads, _USUAL_RATIO)]
            if name in merged:  # the unconditional half on its own: it sees little but itself
                calls.append((Shape(head_size + SPARE_CHANNELS, layer.tokens), layer.heads, 1))
            yield from (call for call in calls if call[0] not in seen)
            seen |= {shape for shape, _, _ in calls}
        if self.vae.widest_head is not None:
            yield Shape(self.vae.widest_head, height * width), 1, 1
