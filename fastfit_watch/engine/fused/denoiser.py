"""The quick denoising loop: memory taken once for each shape, nothing waited for, replayed as CUDA graphs on a GPU.

A `_StaticBuffers` holds everything one run reads and writes, at addresses that stay. On a GPU desks are kept by
shape: the first
steps of the first look run as they are, and while the device is busy with them the same step is captured as a graph,
which serves from then on; the kernels are the same, and so are the bytes. On the CPU every run has its own desk.

The loop runs a few steps ahead of the device and only ever waits for a step that lies behind, so progress is true and
the device never idles. Runs on a GPU take turns.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import astuple, dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastfit_watch.engine.fused.attention_buffers import AttentionBuffers
from fastfit_watch.engine.fused.cuda_graphs import capture, may_capture
from fastfit_watch.engine.fused.unet import LATENT_CHANNELS, FusedUNet
from fastfit_watch.engine.networks.reference_attention import ReferenceCache
from fastfit_watch.engine.noise import Noise
from fastfit_watch.engine.noise_schedule import Coefficients, NoiseSchedule, OnStep, advance
from fastfit_watch.engine.transfer import upload

_AHEAD = 2  # steps given to the device before the first of them is waited for
_PLAIN_STEPS = 2  # of the first look of a shape: they load kernels, and keep the device busy during the capture
_DESKS = 4
_NUMBERS = len(fields(Coefficients))


@dataclass(frozen=True)
class DenoiseBatch:
    """What is denoised together: the rows of a batch, with equal shapes.

    condition : float32 (B, 5, h, w). references : for each look the garments it wears, as (unconditional,
    conditional) caches of one row. Looks of a batch never see each other's garments.
    """

    condition: Tensor
    references: Sequence[Sequence[tuple[ReferenceCache, ReferenceCache]]]
    noise: Sequence[Noise]
    guidance: float


@dataclass(frozen=True)
class _Key:
    """What the size and the work of a desk depend on."""

    batch: int
    size: tuple[int, int]
    reference_tokens: tuple[tuple[str, int], ...]
    unconditional_tokens: tuple[tuple[str, int], ...]
    guided: bool
    clip: float | None


class Denoiser:
    """Runs the loop on one device. Keeps memory between looks, but nothing of them that a later look could see."""

    def __init__(self, unet: FusedUNet) -> None:
        self._unet = unet
        self._on_gpu = unet.device.type == "cuda"
        self._turn = threading.Lock()
        self._desks: OrderedDict[_Key, _StaticBuffers] = OrderedDict()
        self._pool: Any = None

    @property
    def kept_bytes(self) -> int:
        """Memory that desks hold between looks."""
        return sum(desk.nbytes for desk in self._desks.values())

    def drop_caches(self) -> None:
        """Give all memory back. The next look of each shape begins anew."""
        with self._turn:
            self._desks.clear()
            self._pool = None

    def run(self, schedule: NoiseSchedule, job: DenoiseBatch, on_step: OnStep | None = None) -> Tensor:
        """Run all steps (FastFit inference specification, section 2, steps 7 to 10).

        Parameters
        ----------
        on_step : called in order with (steps done, steps in all), each when its step is done. What it raises ends the
            run.

        Returns
        -------
        float32 (B, 4, h, w), scaled latents.
        """
        with self._turn if self._on_gpu else nullcontext():
            desk = self._desk(schedule, job)
            desk.lay_out(job)
            try:
                self._loop(desk, schedule, job, on_step)
            except BaseException:
                if self._on_gpu:
                    # What is under way must not write into the desk while the next look is laid out.
                    torch.cuda.current_stream(self._unet.device).synchronize()
                raise
            return desk.latents.permute(0, 3, 1, 2).clone()

    def _loop(self, desk: _StaticBuffers, schedule: NoiseSchedule, job: DenoiseBatch, on_step: OnStep | None) -> None:
        device, steps = self._unet.device, len(schedule.timesteps)
        offsets = self._unet.time_offsets(schedule.timesteps)
        numbers = upload(torch.tensor([astuple(step) for step in schedule.coefficients], dtype=torch.float32), device)
        shape = (1, LATENT_CHANNELS, *job.condition.shape[2:])
        initial = torch.cat([noise.initial(shape) for noise in job.noise])
        desk.latents.copy_(upload(initial, device).permute(0, 2, 3, 1))
        done: list[torch.cuda.Event] = []
        for index in range(steps):
            desk.offsets.copy_(offsets[index : index + 1])
            desk.numbers.copy_(numbers[index])
            # Drawn while the device is busy with the steps before; all at once, it would have to wait for them.
            fresh = torch.cat([noise.step(index, shape) for noise in job.noise])
            desk.fresh.copy_(upload(fresh, device).permute(0, 2, 3, 1))
            self._step(desk, guided=desk.key.guided and schedule.guided[index], left=steps - index)
            if not self._on_gpu:
                _tell(on_step, index + 1, steps)
                continue
            done.append(torch.cuda.Event(blocking=True))  # type: ignore[no-untyped-call]
            done[-1].record()
            if index >= _AHEAD:
                done[index - _AHEAD].synchronize()
                _tell(on_step, index - _AHEAD + 1, steps)
        for index in range(max(0, len(done) - _AHEAD), len(done)):
            done[index].synchronize()
            _tell(on_step, index + 1, steps)

    def _step(self, desk: _StaticBuffers, *, guided: bool, left: int) -> None:
        """One step: as a graph where there is one, or where enough steps are left to make it worth capturing."""
        is_due = guided not in desk.graphs and desk.plain[guided] >= _PLAIN_STEPS and left > _PLAIN_STEPS
        if self._on_gpu and is_due and may_capture(self._unet.device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            # All graphs share one pool of memory: they never run at the same time, and leave nothing in it.
            desk.graphs[guided] = capture(self._pool, partial(desk.step, self._unet, guided))
        graph = desk.graphs.get(guided)
        if graph is not None:
            graph.replay()
            return
        desk.step(self._unet, guided)
        desk.plain[guided] += 1

    def _desk(self, schedule: NoiseSchedule, job: DenoiseBatch) -> _StaticBuffers:
        height, width = job.condition.shape[2:]
        tokens = self._reference_tokens(job, 1), self._reference_tokens(job, 0)
        key = _Key(len(job.noise), (height, width), *tokens, job.guidance > 1, schedule.clip)
        if not self._on_gpu:
            return _StaticBuffers(self._unet, key)
        if key not in self._desks:
            while len(self._desks) >= _DESKS:
                self._desks.popitem(last=False)
            self._desks[key] = _StaticBuffers(self._unet, key)
        self._desks.move_to_end(key)
        return self._desks[key]

    def _reference_tokens(self, job: DenoiseBatch, half: int) -> tuple[tuple[str, int], ...]:
        """What every look sees of its garments in each layer, in the unconditional (0) or the conditional (1) half."""
        counts = [
            tuple((layer, sum(pair[half].layers[layer].keys.shape[2] for pair in worn)) for layer in self._unet.layers)
            for worn in job.references
        ]
        if any(count != counts[0] for count in counts):
            raise ValueError("Looks that are denoised together must wear garments of the same sizes.")
        return counts[0]


class _StaticBuffers:
    """Everything that one run reads and writes. Rows: the unconditional halves of all looks, then the conditional."""

    def __init__(self, unet: FusedUNet, key: _Key) -> None:
        self.key = key
        device = unet.device
        self.picture = torch.zeros((key.batch, *key.size, unet.input_channels), device=device, dtype=unet.dtype)
        self.buffers = AttentionBuffers.empty(
            unet.layer_shapes(key.size),
            key.batch * (2 if key.guided else 1),
            dict(key.reference_tokens),
            device,
            unet.dtype,
            dict(key.unconditional_tokens) if key.guided else None,
        )
        self.latents, self.previous, self.fresh = (
            torch.zeros((key.batch, *key.size, LATENT_CHANNELS), device=device) for _ in range(3)
        )
        self.offsets = unet.time_offsets([0])
        self.numbers = torch.zeros(_NUMBERS, device=device)
        self.guidance = torch.zeros((), device=device)
        self.graphs: dict[bool, torch.cuda.CUDAGraph | None] = {}
        self.plain = {True: 0, False: 0}

    @property
    def nbytes(self) -> int:
        return self.buffers.nbytes + self.picture.nbytes

    def lay_out(self, job: DenoiseBatch) -> None:
        """Put a job on the desk. Every number that the last one left is written over, or zeroed."""
        batch = self.key.batch
        condition = job.condition.to(self.picture.device, self.picture.dtype).permute(0, 2, 3, 1)
        self.picture[..., LATENT_CHANNELS : LATENT_CHANNELS + condition.shape[-1]] = condition
        for row in range(self.buffers.rows):
            half = 0 if self.key.guided and row < batch else 1
            self.buffers.fill(row, [pair[half] for pair in job.references[row % batch]])
        self.previous.zero_()
        self.guidance.fill_(job.guidance)

    def step(self, unet: FusedUNet, guided: bool) -> None:
        """One step, from and to this desk (section 2, step 10)."""
        self.picture[..., :LATENT_CHANNELS] = self.latents
        buffers = self.buffers if guided == self.key.guided else self.buffers.conditional()
        predicted = unet.predict(self.picture, self.offsets, buffers).float()
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + self.guidance * (conditional - unconditional)
        latents, seen = advance(self.numbers, self.key.clip, self.latents, predicted, self.previous, self.fresh)
        self.latents.copy_(latents)
        self.previous.copy_(seen)


def _tell(on_step: OnStep | None, done: int, steps: int) -> None:
    if on_step is not None:
        on_step(done, steps)
