"""The bundle's files, and what its licence asks for. Read without the engine: no torch, no network."""

from __future__ import annotations

import json
from pathlib import Path

from fastfit_watch.bundles.catalogue import LICENCE, MINI, KnownBundle, bundle_folder, known_bundle
from fastfit_watch.bundles.integrity import BundleState, check_sizes, check_unrecorded_file
from fastfit_watch.bundles.sizes import SIZES
from fastfit_watch.cli.doctor.finding import Finding, bad, good, poor
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.text import gigabytes

_EVERY_BUNDLE = (
    "bundle.json",
    "scheduler/scheduler_config.json",
    *(f"{network}/{file}" for network in ("unet", "vae") for file in ("config.json", "*.safetensors")),
    "parser/*",
)


def examine_weights(config: Config) -> list[Finding]:
    """Is the bundle whole, as far as names and sizes tell, and is a content filter set where its licence asks for one?

    Checksums are for `models verify`: they take minutes.
    """
    folder, known = bundle_folder(config.bundle, config.models), known_bundle(config.bundle)
    files = _judge_own(folder) if known is None else _judge_known(config.bundle, folder, known)
    return [files, _judge_licence(config, folder)]


def _judge_known(name: str, folder: Path, known: KnownBundle) -> Finding:
    """A bundle of the catalogue. One that is named by its path is never fetched."""
    condition = check_sizes(folder, known)
    fix = f"fastfit-watch models pull {known.name}, or copy the folder here from a machine that has it."
    size = SIZES[known.name]
    card = f"{gigabytes(size.card_bytes)} on the card with all of it there"
    if condition.state is BundleState.COMPLETE:
        return good("weights", f"{folder} has all its files; it takes up to {card}")
    if condition.state is BundleState.DAMAGED or "/" in name:
        return bad("weights", " ".join(condition.faults) or f"there is no bundle in {folder}.", fix)
    if condition.state is BundleState.ABSENT:
        message = f"{known.name} is not in {folder} yet: the first start fetches it. It takes up to"
        return poor("weights", f"{message} {gigabytes(size.disk_bytes)} on the disk, and {card}.", fix)
    return poor("weights", f"{folder} is not complete yet: the next start goes on fetching.", fix)


def _judge_own(folder: Path) -> Finding:
    """A bundle that this program does not know by name, or the one it ships."""
    fix = "Copy the folder again from where it was made. 'fastfit-watch models list' shows what is here."
    missing = [pattern for pattern in _EVERY_BUNDLE if next(folder.glob(pattern), None) is None]
    if missing:
        return bad("weights", f"{folder} lacks {', '.join(missing)}.", fix)
    broken = [
        fault for path in sorted(folder.rglob("*.safetensors")) if (fault := check_unrecorded_file(path)) is not None
    ]
    return bad("weights", " ".join(broken), fix) if broken else good("weights", f"{folder} has all its files")


def _judge_licence(config: Config, folder: Path) -> Finding:
    if config.bundle == MINI:
        return good("filter", "not needed: the mini bundle dresses drawn figures")
    if config.content_filter.model:
        return good("filter", f"results pass {config.content_filter.model}")
    message = (
        f"there is no content filter. Licence of the weights: {_licence(folder)}. Who distributes results needs one."
    )
    return poor("filter", message, "Set content_filter.model, or have a person look at every result.")


def _licence(folder: Path) -> str:
    try:
        return str(json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["licence"])
    except (OSError, ValueError, KeyError, TypeError):
        return LICENCE
