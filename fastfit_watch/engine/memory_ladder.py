"""What each rung of the memory ladder does to the networks, and the way down it when a device is full.

The VAE is only ever given one picture at a time, so slicing a batch would change nothing and is no rung. Whole networks
are moved where a stage begins and ends. Layer by layer, accelerate moves them: its hooks are put on the layers alone,
since its hook for a whole network copies dictionaries among the arguments, and ours are written into.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from accelerate.hooks import attach_align_device_hook, remove_hook_from_module
from diffusers import AutoencoderKL
from torch import nn

from fastfit_watch.domain.errors import OutOfMemory
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.engine.bundle import Bundle
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.pixels import Size

Made = TypeVar("Made")

_AWAY = "cpu"
_SIZE_STEP_PX = 8  # a latent covers 8 x 8 pixels


def home_device(device: str, rung: Rung) -> str:
    """Where networks wait for their turn: on the device itself, or from `offload` on in the machine's memory."""
    return _AWAY if rung.reaches(Rung.OFFLOAD) else device


def place(
    unet: FastFitUNet, vae: AutoencoderKL, others: Sequence[nn.Module], device: str, rung: Rung, size: Size
) -> None:
    """Put all networks where `rung` wants them, wherever they were. Nobody may use them meanwhile.

    Parameters
    ----------
    others : the parser's networks. size : (height, width) of the largest picture the VAE is given.

    Raises
    ------
    torch.OutOfMemoryError : they do not fit. All of them wait in the machine's memory then, as for `offload`.
    """
    for network in (unet, vae):
        remove_hook_from_module(network, recurse=True)
    for network in (unet, vae, *others):
        network.to(_AWAY)
    free_memory(device)
    if not rung.reaches(Rung.OFFLOAD):
        try:
            for network in (unet, vae, *others):
                network.to(device)
        except RuntimeError:
            for network in (unet, vae, *others):
                network.to(_AWAY)
            raise
    if rung.reaches(Rung.SEQUENTIAL):
        for network in (unet, vae):
            weights = {name: value.detach() for name, value in network.state_dict().items()}
            attach_align_device_hook(network, torch.device(device), offload=True, weights_map=weights)
    _tile(vae, size, on=rung.reaches(Rung.TILES))


@contextmanager
def at_work(networks: Sequence[nn.Module], device: str, rung: Rung) -> Iterator[None]:
    """Have whole networks on the device while a stage uses them, and away from it afterwards, where `rung` asks for it.

    Those that come layer by layer need nothing done.
    """
    moved = [network for network in networks if rung.reaches(Rung.OFFLOAD) and not _is_streamed(network)]
    try:
        for network in moved:
            network.to(device)
        yield
    finally:
        for network in moved:
            network.to(_AWAY)
        if moved:
            free_memory(device)


def shrink(bundle: Bundle, rung: Rung) -> Bundle:
    """The bundle with the sizes of `rung`: from `smaller` on three quarters of its own, in multiples of 8."""
    if not rung.reaches(Rung.SMALLER):
        return bundle
    return replace(
        bundle,
        person_size=_three_quarters(bundle.person_size),
        garment_size=_three_quarters(bundle.garment_size),
        accessory_size=_three_quarters(bundle.accessory_size),
    )


def descend(rungs: Sequence[Rung], attempt: Callable[[Rung], Made], note: Callable[[Rung, OutOfMemory], None]) -> Made:
    """Do something on the first rung that has memory enough for it.

    Parameters
    ----------
    rungs : from `rungs.ladder`, at least one.
    attempt : does it on one rung. Only `OutOfMemory` leads to the next.
    note : called with each rung that had too little, and its error, before the next is tried. It must not keep the
        error, whose frames hold tensors. What it raises ends the descent.

    Raises
    ------
    OutOfMemory : there was too little on the last rung, too.
    """
    for rung in rungs[:-1]:
        try:
            return attempt(rung)
        except OutOfMemory as error:
            note(rung, error)
        # Only here, after the exception and all tensors in its frames are gone, is their memory free.
        gc.collect()
    return attempt(rungs[-1])


def limit_memory(device: str, most_bytes: int) -> None:
    """Keep torch from using more of a GPU than this; 0 lets it have all. More than there is, is all."""
    if most_bytes and torch.device(device).type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most_bytes / whole), device)


def free_memory(device: str) -> None:
    """Give what torch keeps for later back to the device. What is still in use stays."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def _is_streamed(network: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in network.parameters())


def _tile(vae: AutoencoderKL, size: Size, *, on: bool) -> None:
    """Let the VAE work on tiles of half the longer side, or on whole pictures."""
    vae.use_tiling = on
    pixels_per_latent = 2 ** (len(vae.config.block_out_channels) - 1)
    step = 4 * pixels_per_latent  # tiles overlap by a quarter, which must be whole latents
    tile = max(step, max(size) // 2 // step * step)
    vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // pixels_per_latent


def _three_quarters(size: Size) -> Size:
    height, width = (side * 3 // 4 // _SIZE_STEP_PX * _SIZE_STEP_PX for side in size)
    return height, width
