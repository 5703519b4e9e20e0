"""The main path: a person and garments in, one picture and its measurements out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from PIL import Image
from torch import Tensor

from fastfit_watch.engine.bundle import Bundle, load_parser, load_scheduler, load_unet, load_vae
from fastfit_watch.engine.garments import Reference, encode_garments, read_references
from fastfit_watch.engine.measure import PeakMemory, StageClock, memory_errors
from fastfit_watch.engine.parsing import HumanParser
from fastfit_watch.engine.person import PreparedPerson, mask_person, parse_person
from fastfit_watch.engine.sampling import (
    NoiseSchedule,
    OnStep,
    Pixels,
    SeededNoise,
    composite,
    cover_person,
    decode,
    denoise,
    draw_posterior_noise,
    encode,
    make_condition,
    mask_to_tensor,
)
from fastfit_watch.engine.unet import FastFitUNet
from fastfit_watch.errors import EngineError
from fastfit_watch.look import Category, SamplingOptions


@dataclass(frozen=True)
class PreparedLook:
    """All that is known of a look before it is sampled. May be sampled again: the result is the same.

    condition : float32 (1, 5, h, w), mask and masked person's latents. seconds : wall seconds by stage, so far.
    """

    person: PreparedPerson
    condition: Tensor
    references: tuple[Reference, ...]
    options: SamplingOptions
    seed: int
    seconds: Mapping[str, float]

    @property
    def mask(self) -> Pixels:
        """uint8 (H, W) at the model's size: 255 where the picture is repainted, else 0."""
        return self.person.mask


@dataclass(frozen=True)
class TryOnResult:
    """One finished picture.

    Attributes
    ----------
    image : RGB; `crop`: the bundle's person size, `paste_back`: the original's size.
    seed : what it was sampled with.
    seconds : wall seconds by stage: parse, mask, encode, references, denoise, decode, composite.
    peak_vram_bytes : most memory in use on the device while the look was sampled, weights and a look prepared at the
        same time included; None on the CPU.
    """

    image: Image.Image
    seed: int
    seconds: Mapping[str, float]
    peak_vram_bytes: int | None


@dataclass(frozen=True)
class FastFitEngine:
    """The loaded networks. Holds nothing of any look, so that looks cannot meet; two threads may share it."""

    bundle: Bundle
    unet: FastFitUNet
    vae: AutoencoderKL
    scheduler: DDPMScheduler
    parser: HumanParser
    device: str

    @classmethod
    def load(cls, bundle: Bundle, device: str, dtype: torch.dtype | None = None) -> FastFitEngine:
        """Load all networks of a bundle onto `device` ("cpu", "cuda", "cuda:1").

        dtype : of UNet and VAE; None takes bfloat16 on a GPU and float32 on the CPU.

        Raises
        ------
        BundleError : weights are missing, damaged or do not fit. OutOfMemory : they do not fit on the device.
        """
        chosen = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
        with memory_errors(device, "loading the networks"):
            return cls(
                bundle,
                load_unet(bundle, device, chosen),
                load_vae(bundle, device, chosen),
                load_scheduler(bundle),
                load_parser(bundle, device, chosen),
                device,
            )

    def try_on(
        self,
        person: Image.Image,
        garments: Mapping[Category, Image.Image],
        options: SamplingOptions,
        on_step: OnStep | None = None,
    ) -> TryOnResult:
        """Dress a person. See `prepare` and `sample`."""
        return self.sample(self.prepare(person, garments, options), on_step)

    @torch.inference_mode()
    def prepare(
        self, person: Image.Image, garments: Mapping[Category, Image.Image], options: SamplingOptions
    ) -> PreparedLook:
        """Do all that needs no denoising: parse and mask the person, encode person and garments.

        Parameters
        ----------
        person, garments : RGB, already upright.
        options : with its seed set.

        Raises
        ------
        EngineError : no seed, no garments, or nobody in the picture. OutOfMemory : the device is full.
        """
        if options.seed is None:
            raise EngineError("The look has no seed.", hint="Draw and record a seed before the engine is asked.")
        clock = StageClock(self.device)
        with memory_errors(self.device, "preparing the look"):
            with clock.stage("parse"):
                parsed = parse_person(person, options.framing, self.parser, self.bundle.person_size)
            with clock.stage("mask"):
                masked = mask_person(parsed, garments.keys(), options.mask)
            with clock.stage("encode"):
                condition = self._encode_person(masked)
                references = encode_garments(self.vae, garments, self.bundle.garment_sizes)
        return PreparedLook(masked, condition, references, options, options.seed, clock.seconds)

    @torch.inference_mode()
    def sample(self, prepared: PreparedLook, on_step: OnStep | None = None) -> TryOnResult:
        """Denoise, decode and put the result into the picture.

        Parameters
        ----------
        on_step : called after every step with (steps done, steps in all). What it raises ends the look and comes out
            here; nothing of the look stays behind.

        Raises
        ------
        OutOfMemory : the device is full.
        """
        options, clock, peak = prepared.options, StageClock(self.device), PeakMemory(self.device)
        with memory_errors(self.device, "sampling the look"):
            with clock.stage("references"):
                references = read_references(self.unet, prepared.references, options.guidance)
            with clock.stage("denoise"):
                schedule, noise = NoiseSchedule.of(self.scheduler, options.steps), SeededNoise(prepared.seed)
                latents = denoise(self.unet, schedule, prepared.condition, references, options.guidance, noise, on_step)
            with clock.stage("decode"):
                generated = decode(self.vae, latents)
            with clock.stage("composite"):
                picture = composite(generated, prepared.person.picture, prepared.person.mask)
                image = prepared.person.finish(picture)
        return TryOnResult(image, prepared.seed, {**prepared.seconds, **clock.seconds}, peak.read())

    def _encode_person(self, person: PreparedPerson) -> Tensor:
        """Encode the covered person, and join the mask: float32 (1, 5, h, w)."""
        covered = cover_person(person.picture, person.mask, person.pose)
        noise = partial(draw_posterior_noise, "person", (person.picture, person.mask, person.pose))
        return make_condition(mask_to_tensor(person.mask).to(self.device), encode(self.vae, covered, noise))
