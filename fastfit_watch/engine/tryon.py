"""The main path: a person and garments in, one picture and its measurements out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from PIL import Image
from torch import Tensor, nn

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.domain.look import Category, Framing, MaskMode, SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.engine.autoencoding import Autoencoder, PlainVAE, decode, encode
from fastfit_watch.engine.blending import Blend, level_background
from fastfit_watch.engine.bundle import Bundle, load_parser, load_scheduler, load_unet, load_vae
from fastfit_watch.engine.cache import ContentCache, HitList
from fastfit_watch.engine.fused.networks import FusedNetworks
from fastfit_watch.engine.measurement import PeakMemory, StageClock, memory_errors, peak_memory, simulate_shortage
from fastfit_watch.engine.memory_ladder import at_work, free_memory, home_device, place, shrink
from fastfit_watch.engine.networks.unet import FastFitUNet
from fastfit_watch.engine.noise import SeededNoise, draw_posterior_noise
from fastfit_watch.engine.noise_schedule import NoiseSchedule, OnStep
from fastfit_watch.engine.parsers.parsing import HumanParser
from fastfit_watch.engine.pixels import Pixels, Size, composite, cover_person, make_condition, mask_to_tensor, to_pixels
from fastfit_watch.engine.plain_denoiser import DenoiseInput, denoise
from fastfit_watch.engine.preprocessing.garments import fit_garments
from fastfit_watch.engine.preprocessing.person import ParsedPerson, PreparedPerson, mask_person, parse_person
from fastfit_watch.engine.preprocessing.picture import Picture
from fastfit_watch.engine.references import Reference, encode_garments, read_reference_rows, read_references


@dataclass(frozen=True)
class PreparedLook:
    """All that is known of a look before it is sampled. May be sampled again: the result is the same.

    condition : float32 (1, 5, h, w), mask and masked person's latents. seconds : wall seconds by stage, so far.
    peak_vram_bytes : most memory in use on the device until now; None on the CPU. cache : what was found there and
    what not, so far, as in `person.hit` and `garment.miss` -> how often.
    """

    person: PreparedPerson
    condition: Tensor
    references: tuple[Reference, ...]
    options: SamplingOptions
    seed: int
    seconds: Mapping[str, float]
    peak_vram_bytes: int | None = None
    cache: Mapping[str, int] = field(default_factory=dict)

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
    seconds : wall seconds by stage: parse, mask, encode, references, denoise, decode, blend (if seamless), composite.
    peak_vram_bytes : most memory in use on the device while the look was prepared and sampled, weights and what was
        done at the same time for its neighbours included; None on the CPU.
    rung : of the memory ladder, on which it was sampled.
    cache : what was found there and what not, as in `person.hit` and `garment.miss` -> how often. Also: mask,
        encoding (of the person) and keys (of a garment).
    """

    image: Image.Image
    seed: int
    seconds: Mapping[str, float]
    peak_vram_bytes: int | None
    rung: Rung = Rung.FULL
    cache: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SampledLook:
    """A look whose picture is made, but not yet put into the photograph. generated : uint8 (H, W, 3)."""

    prepared: PreparedLook
    generated: Pixels
    seconds: Mapping[str, float]
    peak_vram_bytes: int | None
    rung: Rung
    cache: Mapping[str, int]


@dataclass(frozen=True)
class LoadOptions:
    """How the networks of a bundle are loaded.

    Attributes
    ----------
    dtype : of UNet and VAE; None takes bfloat16 on a GPU and float32 on the CPU.
    pose_device : where the human toolkit's DWPose runs. densepose : `builtin` or `detectron2`.
    cache_bytes : most that is kept of earlier looks on a GPU, and in the machine's memory.
    choices : a file that remembers which attention kernels are fastest on which card.
    """

    dtype: torch.dtype | None = None
    pose_device: str = "cpu"
    densepose: str = "builtin"
    cache_bytes: tuple[int, int] = (8 * 2**30, 2**30)
    choices: Path | None = None


@dataclass(frozen=True)
class TryOnEngine:
    """The loaded networks. What it keeps between looks is kept by content, so that looks cannot meet.

    Threads may share it: one prepares while another samples. fast : the networks' quick form, on the rung `full`.
    """

    bundle: Bundle
    unet: FastFitUNet
    vae: AutoencoderKL
    scheduler: DDPMScheduler
    parser: HumanParser
    device: str
    cache: ContentCache
    rung: Rung = Rung.FULL
    fast: FusedNetworks | None = None
    choices: Path | None = None

    @classmethod
    def load(
        cls, bundle: Bundle, device: str, options: LoadOptions = LoadOptions(), *, rung: Rung = Rung.FULL
    ) -> TryOnEngine:
        """Load all networks of a bundle for `device` ("cpu", "cuda", "cuda:1"), on a rung of the memory ladder.

        Raises
        ------
        BundleError : weights are missing, damaged or do not fit. OutOfMemory : they do not fit on the device.
        """
        chosen = options.dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
        home = home_device(device, rung)
        with memory_errors(device, "load"):
            simulate_shortage(rung, "load")
            engine = cls(
                bundle,
                load_unet(bundle, home, chosen),
                load_vae(bundle, home, chosen),
                load_scheduler(bundle),
                load_parser(bundle, device, chosen, options.pose_device, options.densepose),
                device,
                ContentCache(device, *options.cache_bytes),
                choices=options.choices,
            )
            return engine._with_fused_networks() if rung is Rung.FULL else engine.on_rung(rung)

    def on_rung(self, rung: Rung) -> TryOnEngine:
        """The same networks, placed for another rung. They are moved: from now on this engine must not be used.

        Raises OutOfMemory: they do not fit there. Then all wait in the machine's memory, as on the rung `offload`.
        """
        if rung is self.rung:
            return self
        if self.fast is not None:
            self.fast.release()
        # What other rungs make may differ by rounding, and its memory is needed now.
        self.cache.clear()
        with memory_errors(self.device, "place"):
            simulate_shortage(rung, "place")
            others = self.parser.networks
            place(self.unet, self.vae, others, self.device, rung, self.bundle.person_size)
            moved = replace(self, rung=rung, fast=None)
            return moved._with_fused_networks() if rung is Rung.FULL else moved

    def drop_caches(self) -> bool:
        """Let go of all that is kept of earlier looks. Was any of it on the device? Then a full one has room now.

        Raises nothing; looks in work elsewhere keep what they hold.
        """
        held = self.cache.use.device_bytes + (self.fast.kept_bytes if self.fast is not None else 0)
        self.cache.clear()
        if self.fast is not None:
            self.fast.drop_caches()
        free_memory(self.device)
        return torch.device(self.device).type == "cuda" and held > 0

    def try_on(
        self,
        person: Image.Image | Picture,
        garments: Mapping[Category, Image.Image | Picture],
        options: SamplingOptions,
        on_step: OnStep | None = None,
    ) -> TryOnResult:
        """Dress a person. See `prepare` and `sample`."""
        return self.sample(self.prepare(person, garments, options), on_step)

    @torch.inference_mode()
    def prepare(
        self,
        person: Image.Image | Picture,
        garments: Mapping[Category, Image.Image | Picture],
        options: SamplingOptions,
    ) -> PreparedLook:
        """Do all that needs no denoising: parse and mask the person, encode person and garments.

        Parameters
        ----------
        person, garments : RGB, already upright. What is made of a `Picture` with a digest is kept, and used again.
        options : with its seed set.

        Raises
        ------
        EngineError : no seed, no garments, or nobody in the picture. OutOfMemory : the device is full.
        """
        if options.seed is None:
            raise EngineError("The look has no seed.", hint="Draw and record a seed before the engine is asked.")
        hits, bundle = HitList(self.cache), shrink(self.bundle, self.rung)
        # Garments are opened and fitted beside the person's parsing, so that the device never waits for them.
        fitting = fit_garments(garments, bundle.garment_sizes, hits)
        with self._stream(lambda fast: fast.preparing), fitting as fitted:
            clock = StageClock(self.device, self.rung)
            picture, place_of = Picture.of(person), _place_of(options, garments, bundle.person_size)
            with clock.stage("parse"), self._at_work(*self.parser.networks):
                parse = partial(self._parse, picture, options.framing, bundle.person_size)
                parsed = hits.fetch("person", picture.key("parsed", options.framing, bundle.person_size), parse)
            with clock.stage("mask"):
                mask = partial(mask_person, parsed, garments.keys(), options.mask)
                masked = hits.fetch("mask", picture.key("masked", *place_of), mask)
            with clock.stage("encode"), self._at_work(self.vae):
                encode_person = partial(self._encode_person, masked)
                condition = hits.fetch("encoding", picture.key("condition", *place_of), encode_person)
                references = encode_garments(self._vae, fitted, hits)
        peak = peak_memory(self.device)
        return PreparedLook(
            masked, condition, references, options, options.seed, clock.seconds, peak, dict(hits.counts)
        )

    def sample(self, prepared: PreparedLook, on_step: OnStep | None = None) -> TryOnResult:
        """Make the picture and put it into the photograph. See `denoise_and_decode` and `composite`."""
        return self.composite(self.denoise_and_decode(prepared, on_step))

    @torch.inference_mode()
    def denoise_and_decode(self, prepared: PreparedLook, on_step: OnStep | None = None) -> SampledLook:
        """Denoise and decode: all that needs the device.

        Parameters
        ----------
        on_step : called after every step with (steps done, steps in all). What it raises ends the look and comes out
            here; nothing of the look stays behind.

        Raises
        ------
        OutOfMemory : the device is full.
        """
        clock, peak = StageClock(self.device, self.rung), PeakMemory(self.device)
        hits = HitList(self.cache)
        with self._stream(lambda fast: fast.sampling):
            latents = self._denoise(prepared, clock, hits, partial(self._after_step, on_step))
            with clock.stage("decode"), self._at_work(self.vae):
                generated = to_pixels(decode(self._vae, latents))
            if self.bundle.blend is Blend.SEAMLESS:
                with clock.stage("blend"), self._at_work(*self.parser.networks):
                    generated = self._level(generated, prepared.person)
        most = max(filter(None, (prepared.peak_vram_bytes, peak.read())), default=None)
        seconds, counts = {**prepared.seconds, **clock.seconds}, {**prepared.cache, **hits.counts}
        return SampledLook(prepared, generated, seconds, most, self.rung, counts)

    def _level(self, generated: Pixels, person: PreparedPerson) -> Pixels:
        """Let the background inside the mask continue what is outside; the made picture says where background is."""
        parsing = self.parser.parse(composite(generated, person.picture, person.mask))
        background = (parsing.lip == 0) & (parsing.atr == 0)
        return level_background(generated, person.picture, person.mask, background)

    def composite(self, sampled: SampledLook) -> TryOnResult:
        """Put a made picture into the photograph: work for the CPU, which may be done beside the next look."""
        clock, prepared = StageClock("cpu", sampled.rung), sampled.prepared
        with clock.stage("composite"):
            picture = composite(sampled.generated, prepared.person.picture, prepared.person.mask)
            image = prepared.person.finish(picture)
        seconds = {**sampled.seconds, **clock.seconds}
        return TryOnResult(image, prepared.seed, seconds, sampled.peak_vram_bytes, sampled.rung, sampled.cache)

    def _denoise(self, prepared: PreparedLook, clock: StageClock, hits: HitList, on_step: OnStep) -> Tensor:
        """References and all steps; the quick way where there is one."""
        options = prepared.options
        schedule = NoiseSchedule.of(self.scheduler, options.steps, options.preset)
        noise, guidance = SeededNoise(prepared.seed), options.guidance
        if self.fast is not None:
            with clock.stage("references"):
                worn = read_reference_rows(self.fast.unet, prepared.references, guidance, hits)
            with clock.stage("denoise"):
                return self.fast.denoise(schedule, prepared.condition, [worn], guidance, [noise], on_step)
        halves = self.rung.reaches(Rung.HALVES)
        with memory_errors(self.device, "references"), self._at_work(self.unet):
            with clock.stage("references"):
                references = read_references(self.unet, prepared.references, guidance, halves=halves)
            with clock.stage("denoise"):
                start = DenoiseInput(prepared.condition, references, guidance, noise)
                return denoise(self.unet, schedule, start, on_step, halves=halves)

    def _with_fused_networks(self) -> TryOnEngine:
        """The same with the networks' quick form. All of them are on the device."""
        fast = FusedNetworks(self.unet, self.vae)
        fast.warm_up(self.bundle.person_size, self.choices)
        return replace(self, fast=fast)

    @property
    def _vae(self) -> Autoencoder:
        return PlainVAE(self.vae) if self.fast is None else self.fast.vae

    def _stream(self, of: Callable[[FusedNetworks], torch.cuda.Stream | None]) -> AbstractContextManager[object]:
        """Give the device work on a stream of its own, beside the other thread's."""
        stream = None if self.fast is None else of(self.fast)
        return nullcontext() if stream is None else torch.cuda.stream(stream)

    def _at_work(self, *networks: nn.Module) -> AbstractContextManager[None]:
        """Have these on the device while they are used, if the rung keeps them elsewhere."""
        return at_work(networks, self.device, self.rung)

    def _after_step(self, on_step: OnStep | None, step: int, steps: int) -> None:
        simulate_shortage(self.rung, "step")
        if on_step is not None:
            on_step(step, steps)

    def _parse(self, picture: Picture, framing: Framing, size: Size) -> ParsedPerson:
        return parse_person(picture.open(), framing, self.parser, size)

    def _encode_person(self, person: PreparedPerson) -> Tensor:
        """Encode the covered person, and join the mask: float32 (1, 5, h, w)."""
        covered = cover_person(person.picture, person.mask, person.pose, self.device)
        noise = partial(draw_posterior_noise, "person", (person.picture, person.mask, person.pose))
        return make_condition(mask_to_tensor(person.mask, self.device), encode(self._vae, covered, noise))


def _place_of(options: SamplingOptions, slots: Iterable[Category], size: Size) -> tuple[Hashable, ...]:
    """What a person's mask depends on besides the photograph: slots only where just their regions are repainted."""
    worn = tuple(sorted(slots)) if options.mask is MaskMode.WORN else ()
    return options.framing, options.mask, worn, size
