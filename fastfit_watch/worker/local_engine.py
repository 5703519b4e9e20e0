"""Virtual try-on in this very process: the Python face of the package, which `try-on` and `reproduce` use as well."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastfit_watch.bundles.progress import DownloadProgress, ProgressListener
from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.errors import ConfigError, OutOfMemory
from fastfit_watch.domain.finishing import Finishing
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import Category, SamplingOptions, outfit_conflict
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.domain.options import OPTIONS
from fastfit_watch.imaging.codec import encode_image, format_of, open_image, to_upright_rgb
from fastfit_watch.imaging.provenance import what_made
from fastfit_watch.system.atomic_write import write_bytes
from fastfit_watch.system.devices import find_devices
from fastfit_watch.system.folders import hash_file
from fastfit_watch.worker.engine_loading import LoadedEngine, load_engine
from fastfit_watch.worker.rendering import LookFiles, encode_result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from fastfit_watch.engine.preprocessing.picture import Picture
    from fastfit_watch.engine.tryon import TryOnResult

    PictureLike = str | Path | Image.Image | NDArray[np.uint8]

_SEEDS = 2**32
_LOG = logging.getLogger("fastfit_watch")

OnStep = Callable[[int, int], None]


class FastFitEngine:
    """A loaded bundle that dresses people: pictures in, one picture and its measurements out.

    Load it once and use it often: what is made of a picture is kept by its content, so a second look of the same
    person, or another person in the same garment, is quicker. One thread at a time may use it.
    """

    def __init__(self, loaded: LoadedEngine, rungs: tuple[Rung, ...], listener: ProgressListener) -> None:
        """Take a loaded engine, the rungs of the memory ladder that it may go down, and who is told of each."""
        self._loaded, self._engine, self._rungs, self._listener = loaded, loaded.engine, rungs, listener

    @classmethod
    def load(
        cls,
        bundle: str | Path = "fastfit-mr-1024",
        *,
        device: str = "auto",
        dtype: str = "auto",
        models: str | Path = "Models",
    ) -> FastFitEngine:
        """Load a bundle; a known one that is not there is fetched first.

        Parameters
        ----------
        bundle : `mini`, `fastfit-mr-1024`, `fastfit-sr-1024`, a directory in `models`, or a path.
        device : `auto` is the first GPU, or the CPU. Others: `cpu`, `cuda:1`.
        dtype : `auto` is bfloat16 on a GPU and float32 on the CPU. Others: `bfloat16`, `float16`, `float32`.
        models : the directory of downloaded bundles.

        Raises
        ------
        BundleError : weights are missing or damaged, or cannot be fetched. ConfigError : an unknown dtype.
        OutOfMemory : the device is too small.
        """
        name = str(bundle.absolute()) if isinstance(bundle, Path) else bundle
        setup = EngineSetup(name, Path(models), find_devices((device,))[0], dtype)
        return cls.of(setup, _LogListener())

    @classmethod
    def of(cls, setup: EngineSetup, listener: ProgressListener) -> FastFitEngine:
        """Load what a setup names. See `load_engine`."""
        return cls(load_engine(setup, listener), setup.rungs, listener)

    def try_on(
        self,
        person: PictureLike,
        garments: Mapping[str, PictureLike],
        *,
        options: SamplingOptions | None = None,
        on_step: OnStep | None = None,
        **choices: int | float | str | None,
    ) -> TryOnResult:
        """Dress a person.

        Parameters
        ----------
        person : a file's path, a Pillow image, or a uint8 array (H, W, 3) in RGB.
        garments : by slot: upper, lower, dress, shoe and bag. A dress excludes upper and lower.
        options : how the look is sampled, where `choices` do not say it.
        on_step : is called after each step with (steps done, steps in all).
        choices : options by their names in a manifest, such as steps, seed, guidance and mask. None leaves one as it
            is. Without a seed one is drawn; the result names it.

        Returns
        -------
        TryOnResult with the image, its seed, the seconds of each stage and the peak memory of the GPU.

        Raises
        ------
        ConfigError : the outfit or an option is impossible. ImageError, OSError : a picture cannot be used.
        EngineError : nobody is in the picture. OutOfMemory : the device is too small.
        """
        chosen = _complete(options or SamplingOptions(), choices)
        worn = {_slot(name): _picture(picture) for name, picture in garments.items()}
        refuse_impossible_outfit(worn)
        return self._make(_picture(person), worn, chosen, on_step)

    def process(
        self,
        person: PictureLike,
        upper: PictureLike | None = None,
        lower: PictureLike | None = None,
        dress: PictureLike | None = None,
        shoe: PictureLike | None = None,
        bag: PictureLike | None = None,
        steps: int = 30,
        seed: int | None = None,
        output: str | Path = "output.png",
    ) -> TryOnResult:
        """Dress a person and save the result: `try_on` with the arguments of the published script, in their order.

        output : a .png, .jpg or .webp file. Where all pictures are files, its marks name their hashes, so that
            `fastfit-watch reproduce` can make it again. Raises what `try_on` does; StorageError if it cannot be saved.
        """
        slots = {"upper": upper, "lower": lower, "dress": dress, "shoe": shoe, "bag": bag}
        garments = {name: picture for name, picture in slots.items() if picture is not None}
        path = Path(output)
        options = _complete(SamplingOptions(format=format_of(path)), {"steps": steps, "seed": seed})
        result = self.try_on(person, garments, options=options)
        write_bytes(path, self._encode(result, {"person": person, **garments}, options))
        return result

    def make_file(
        self,
        files: LookFiles,
        pictures: Mapping[str, Image.Image],
        options: SamplingOptions,
        finish: Finishing,
        on_step: OnStep | None = None,
    ) -> tuple[TryOnResult, bytes]:
        """Make one picture of opened files; returns the engine's result and the bytes of its file.

        pictures : the opened files, under `person` and the garments' slots. Raises EngineError, OSError.
        """
        worn = {slot: _picture(pictures[slot]) for slot in files.garments}
        result = self._make(_picture(pictures["person"]), worn, options, on_step)
        return result, encode_result(result, files, options, self._loaded.versions, finish, {})

    def _make(
        self, person: Picture, garments: Mapping[Category, Picture], options: SamplingOptions, on_step: OnStep | None
    ) -> TryOnResult:
        """Make a look on the first rung that has memory enough, and stay on that rung."""
        from fastfit_watch.engine.memory_ladder import descend

        def attempt(rung: Rung) -> TryOnResult:
            self._move_to(rung)
            try:
                return self._engine.try_on(person, garments, options, on_step)
            except OutOfMemory:
                if not self._engine.drop_caches():
                    raise
            return self._engine.try_on(person, garments, options, on_step)

        def note(tried: Rung, error: OutOfMemory) -> None:
            self._listener.warn(f"on rung '{tried}': {error.message} Trying the next.")

        left = tuple(rung for rung in self._rungs if rung.reaches(self._engine.rung))
        return descend(left, attempt, note)

    def _move_to(self, rung: Rung) -> None:
        if rung is not self._engine.rung:
            # From where all networks wait elsewhere, every rung can be reached, and a failure leads back there.
            self._engine = self._engine.on_rung(Rung.OFFLOAD)
            self._engine = self._engine.on_rung(rung)

    def _encode(self, result: TryOnResult, given: Mapping[str, PictureLike], options: SamplingOptions) -> bytes:
        versions = self._loaded.versions
        files = {name: Path(picture) for name, picture in given.items() if isinstance(picture, str | Path)}
        if len(files) < len(given):
            return encode_image(result.image, options.format, what_made(options, versions, result.rung.value))
        garments = {Category(name): path for name, path in files.items() if name != "person"}
        return encode_result(result, LookFiles(files["person"], garments), options, versions, Finishing(), {})


def refuse_impossible_outfit(slots: Mapping[Category, object]) -> None:
    """Raise ConfigError if nothing is worn, or a dress with upper or lower."""
    if not slots:
        raise ConfigError("The look has no garment.", hint=f"Give at least one of: {', '.join(Category)}.")
    conflict = outfit_conflict(slots)
    if conflict is not None:
        raise ConfigError(conflict, hint="Leave out the dress, or upper and lower.")


def complete_seed(options: SamplingOptions) -> SamplingOptions:
    """The same options with a seed, drawn at random if there is none."""
    return options if options.seed is not None else replace(options, seed=secrets.randbelow(_SEEDS))


def _complete(options: SamplingOptions, choices: Mapping[str, int | float | str | None]) -> SamplingOptions:
    """The options with what was chosen by name, read as a manifest is. Raises ConfigError."""
    chosen: dict[str, Any] = {}
    for name, value in choices.items():
        if name not in OPTIONS:
            raise ConfigError(f"There is no option {name!r}.", hint=f"Known: {', '.join(OPTIONS)}.")
        if value is not None:
            chosen[name] = OPTIONS[name].value.read(str(value))
            if chosen[name] is None:
                raise ConfigError(f"'{name}' must be {OPTIONS[name].value.expected}, not {value!r}.")
    if "preset" in chosen:
        chosen = {"steps": chosen["preset"].steps, **chosen}
    return complete_seed(replace(options, **chosen))


def _slot(name: str) -> Category:
    if name not in list(Category):
        raise ConfigError(f"There is no slot {name!r}.", hint=f"Known: {', '.join(Category)}.")
    return Category(name)


def _picture(given: PictureLike) -> Picture:
    """A picture as the engine takes it, with a digest of its content."""
    from PIL import Image

    from fastfit_watch.engine.preprocessing.picture import Picture

    if isinstance(given, str | Path):
        path = Path(given)
        return Picture(partial(open_image, path, Limits()), hash_file(path))
    image = to_upright_rgb(given if isinstance(given, Image.Image) else Image.fromarray(given))
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes())
    return Picture(lambda: image, f"pixels {digest.hexdigest()}")


class _LogListener:
    """Writes downloads and warnings to the logger `fastfit_watch`, and what must be read to everybody."""

    def say(self, text: str) -> None:
        """Log a line."""
        _LOG.warning("%s", text)

    def warn(self, text: str) -> None:
        """Log a warning."""
        _LOG.warning("%s", text)

    def show(self, progress: DownloadProgress) -> None:
        """Log a line now and then: every half minute."""
        if progress.is_landmark:
            _LOG.warning("%s", progress)
