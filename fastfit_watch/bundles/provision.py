"""Bundles for those who use them: made ready for the engine, and the commands `models pull`, `verify` and `list`.

A bundle that is complete on disk is used as it is; the network is asked only for one that never was.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastfit_watch.bundles.catalogue import (
    KnownBundle,
    bundle_folder,
    known_bundle,
)
from fastfit_watch.bundles.integrity import (
    BUNDLE,
    BundleState,
    check_sizes,
    files_below,
    write_bundle_json,
)
from fastfit_watch.bundles.progress import ProgressListener
from fastfit_watch.domain.errors import BundleError
from fastfit_watch.system.atomic_write import make_folder

_MEND = "Run 'fastfit-watch models pull': what is whole is kept."


def provide_bundle(name: str, models: Path, listener: ProgressListener) -> Path:
    """The directory of a bundle, made ready for the engine: a known one that is not there is fetched.

    name : `mini`, a name of the catalogue or of a directory in `models`, or a path, which is never fetched.

    Raises
    ------
    BundleError : it is damaged, or cannot be had. StorageError : there is no room for it.
    """
    root, bundle = bundle_folder(name, models), known_bundle(name)
    if bundle is None or ("/" in name and (root / BUNDLE).exists()):
        return root
    try:
        _make_ready(name, root, bundle, models, listener)
    except OSError as error:
        raise BundleError(f"{bundle.title} in {root} cannot be used: {error}.", hint="Check the folder.") from error
    return root


def _make_ready(name: str, root: Path, bundle: KnownBundle, models: Path, listener: ProgressListener) -> None:
    condition = check_sizes(root, bundle)
    if condition.state is BundleState.ABSENT and "/" not in name:
        link_local_repositories(root, bundle, models, listener)
        condition = check_sizes(root, bundle)
    if condition.state is BundleState.DAMAGED or (condition.state is not BundleState.COMPLETE and "/" in name):
        raise BundleError(" ".join(condition.faults) or f"There is no bundle in {root}.", hint=_MEND)
    if condition.state is not BundleState.COMPLETE:
        from fastfit_watch.bundles.download import fetch

        for fault in condition.faults:
            listener.warn(fault)
        fetch(bundle, root, listener)
    elif not (root / BUNDLE).exists():
        write_bundle_json(root, bundle, condition.record)


def link_local_repositories(root: Path, bundle: KnownBundle, models: Path, listener: ProgressListener) -> None:
    """Use repositories that lie in `models` under their own names, as `hf download` leaves them: by links."""
    for repository in bundle.repositories:
        beside = models / repository.name.rpartition("/")[2]
        names = list(files_below(beside)) if beside.is_dir() else []
        parts = [part for part in bundle.parts if part.repository == repository]
        for name in filter(None, (part.pick(names) for part in parts)):
            link = root / repository.folder / name
            make_folder(link.parent)
            link.symlink_to(os.path.relpath(beside / name, link.parent))
        if names:
            listener.say(f"{bundle.title}: using what lies in {beside}")
