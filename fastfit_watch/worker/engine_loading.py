"""Makes an engine from settings: the one way for the engine process, `try-on`, `reproduce` and Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastfit_watch.bundles.progress import ProgressListener
from fastfit_watch.bundles.provision import provide_bundle
from fastfit_watch.domain.engine_setup import EngineSetup
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.imaging.provenance import what_runs

if TYPE_CHECKING:
    import torch

    from fastfit_watch.engine.content_filter import ContentFilter
    from fastfit_watch.engine.tryon import TryOnEngine

_AUTO = "auto"


@dataclass(frozen=True)
class LoadedEngine:
    """A loaded engine, the content filter if one is wanted, and what pictures depend on beside inputs and options."""

    engine: TryOnEngine
    content_filter: ContentFilter | None
    versions: Mapping[str, str]


def load_engine(
    setup: EngineSetup, listener: ProgressListener, on_stage: Callable[[str], None] = lambda stage: None
) -> LoadedEngine:
    """Fetch the bundle if it is not there, and load it on the first rung that has memory enough.

    Parameters
    ----------
    listener : is told of downloads and of rungs with too little memory.
    on_stage : is called with `weights`, `libraries` and `models` as each begins.

    Raises
    ------
    BundleError : weights are missing or damaged. OutOfMemory : they do not fit on the last rung either.
    ConfigError : there is no such dtype. StorageError : there is no room for a download.
    """
    on_stage("weights")
    root = provide_bundle(setup.bundle, setup.models, listener)
    on_stage("libraries")
    import torch

    from fastfit_watch.engine.bundle import Bundle
    from fastfit_watch.engine.device_name import card_name
    from fastfit_watch.engine.memory_ladder import descend, limit_memory
    from fastfit_watch.engine.tryon import LoadOptions, TryOnEngine

    if setup.threads > 0:
        torch.set_num_threads(setup.threads)
    limit_memory(setup.device, setup.memory_bytes)
    on_stage("models")
    bundle = Bundle.open(root)
    options = LoadOptions(
        _find_dtype(setup.dtype),
        setup.device if setup.pose == "gpu" else "cpu",
        setup.densepose,
        setup.cache_bytes,
        setup.models / ".attention.json",
    )
    engine = descend(
        setup.rungs,
        lambda rung: TryOnEngine.load(bundle, setup.device, options, rung=rung),
        lambda rung, error: listener.warn(f"rung {rung} of the memory ladder: {error}"),
    )
    content_filter = _load_content_filter(setup, listener)
    dtype = str(next(engine.unet.parameters()).dtype).removeprefix("torch.")
    versions = what_runs(bundle.name, bundle.revision, bundle.licence, dtype, card_name(setup.device))
    return LoadedEngine(engine, content_filter, versions)


def _find_dtype(name: str) -> torch.dtype | None:
    import torch

    found = None if name == _AUTO else getattr(torch, name, None)
    if name != _AUTO and not isinstance(found, torch.dtype):
        raise ConfigError(f"There is no dtype {name!r}.", hint="Known: auto, bfloat16, float16, float32.")
    return found


def _load_content_filter(setup: EngineSetup, listener: ProgressListener) -> ContentFilter | None:
    """The content filter, if one is wanted. transformers is heavy and loaded only for it."""
    wanted = setup.content_filter
    if wanted is None:
        return None
    from fastfit_watch.engine.content_filter import ContentFilter, fetched_revision

    device = setup.device if wanted.device == "gpu" else "cpu"
    found = ContentFilter.load(wanted.model, wanted.labels, wanted.threshold, device, setup.models)
    revision = fetched_revision(wanted.model, setup.models)
    listener.say(f"content filter: {wanted.model}{revision and f' at revision {revision}'}")
    return found
