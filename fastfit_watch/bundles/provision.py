"""Bundles for those who use them: made ready for the engine, and the commands `models pull`, `verify` and `list`.

A bundle that is complete on disk is used as it is; the network is asked only for one that never was.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastfit_watch.bundles.catalogue import (
    KNOWN,
    LICENCE,
    MINI,
    SHIPPED_MINI,
    KnownBundle,
    bundle_folder,
    known_bundle,
)
from fastfit_watch.bundles.integrity import (
    BUNDLE,
    Condition,
    State,
    compare_content,
    describe,
    files_below,
    locate,
    survey,
)
from fastfit_watch.bundles.progress import Listener, Progress, gigabytes
from fastfit_watch.cli.terminal import bar
from fastfit_watch.domain.errors import BundleError, ConfigError
from fastfit_watch.system.atomic_write import make_folder

_MEND = "Run 'fastfit-watch models pull': what is whole is kept."
_BAR_COLUMNS = 24


def provide_bundle(name: str, models: Path, listener: Listener) -> Path:
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


def _make_ready(name: str, root: Path, bundle: KnownBundle, models: Path, listener: Listener) -> None:
    condition = survey(root, bundle)
    if condition.state is State.ABSENT and "/" not in name:
        _adopt(root, bundle, models, listener)
        condition = survey(root, bundle)
    if condition.state is State.DAMAGED or (condition.state is not State.COMPLETE and "/" in name):
        raise BundleError(" ".join(condition.faults) or f"There is no bundle in {root}.", hint=_MEND)
    if condition.state is not State.COMPLETE:
        from fastfit_watch.bundles.download import fetch

        for fault in condition.faults:
            listener.warn(fault)
        fetch(bundle, root, listener)
    elif not (root / BUNDLE).exists():
        describe(root, bundle, condition.record)


def _adopt(root: Path, bundle: KnownBundle, models: Path, listener: Listener) -> None:
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


@dataclass(frozen=True)
class Listed:
    """A bundle as `models list` shows it. bytes: on disk, the engine's converted copies included."""

    name: str
    state: str
    bytes: int
    revision: str
    licence: str
    folder: str
    faults: tuple[str, ...] = ()


def list_bundles(models: Path, *, as_json: bool) -> None:
    """Print every bundle that is known or there. Looks at names and sizes only."""
    others = sorted(path.parent.name for path in models.glob(f"*/{BUNDLE}") if path.parent.name not in KNOWN)
    rows = [_describe_bundle(name, models) for name in (*KNOWN, MINI, *others)]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    cells = [("name", "state", "size", "revision", "licence")]
    cells += [(row.name, row.state, gigabytes(row.bytes), row.revision or "-", row.licence) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    for line in cells:
        print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=False)) + f"  {line[4]}")
    for fault in (fault for row in rows if row.state == State.DAMAGED for fault in row.faults):
        print(fault)


def _describe_bundle(name: str, models: Path) -> Listed:
    root, bundle = bundle_folder(name, models), known_bundle(name)
    condition = survey(root, bundle) if bundle is not None else Condition(State.COMPLETE)
    said = _read_bundle(root)
    revision = condition.record.revision if condition.record is not None else str(said.get("revision", ""))
    licence = str(said.get("licence", f"{LICENCE} of {bundle.repositories[0].name}" if bundle is not None else ""))
    state = "shipped" if root == SHIPPED_MINI else condition.state.value
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return Listed(name, state, size, revision, licence, str(root), condition.faults)


def verify_bundles(names: Sequence[str], models: Path, listener: Listener) -> None:
    """Hash every file of these bundles, by default of all that are there, and print what is wrong.

    Raises
    ------
    BundleError : something is. ConfigError : a name is unknown.
    """
    wanted = [_known(name) for name in names] or [
        bundle for bundle in KNOWN.values() if survey(models / bundle.name, bundle).state is not State.ABSENT
    ]
    if not wanted:
        print(f"No fetched bundle lies in {models}.")
    faults = [fault for bundle in wanted for fault in _verify(bundle, models / bundle.name, listener)]
    if faults:
        raise BundleError("\n".join(faults), hint=_MEND)


def _verify(bundle: KnownBundle, root: Path, listener: Listener) -> list[str]:
    condition = survey(root, bundle)
    if condition.record is None:
        if condition.state is State.COMPLETE:
            print(
                f"{bundle.name}: {len(locate(root, bundle))} files that nobody recorded. None is cut off;"
                " 'fastfit-watch models pull' compares them with the hub's."
            )
            return []
        return list(condition.faults) or [f"{root} is {condition.state.value}."]
    faults: list[str] = []
    for file in condition.record.files:
        listener.say(f"{root / file.path}: {gigabytes(file.bytes)}")
        faults += filter(None, [compare_content(root, file)])
    if not faults:
        size = gigabytes(condition.record.total_bytes)
        print(f"{bundle.name}: all {len(condition.record.files)} files are whole, {size}, {condition.record.revision}")
    return faults


def pull_bundles(names: Sequence[str], models: Path, listener: Listener, *, update: bool) -> None:
    """Fetch these bundles, or mend them; with `update`, the commits that their branches stand for now.

    Raises
    ------
    BundleError, StorageError : it cannot be done. ConfigError : a name is unknown.
    """
    for name in names:
        if name == MINI:
            print(f"{MINI}: comes with the program, there is nothing to fetch")
            continue
        bundle = _known(name)
        root = models / bundle.name
        from fastfit_watch.bundles.download import fetch

        if survey(root, bundle).state is State.ABSENT:
            _adopt(root, bundle, models, listener)
        record = fetch(bundle, root, listener, update=update)
        print(f"{bundle.name}: complete in {root}, {gigabytes(record.total_bytes)}, revision {record.revision}")
        print(f"licence: {LICENCE} of {bundle.repositories[0].name}")


def _known(name: str) -> KnownBundle:
    bundle = KNOWN.get(name)
    if bundle is None:
        near = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(KNOWN)}."
        raise ConfigError(f"{name!r} is no bundle that can be fetched.", hint=hint)
    return bundle


def _read_bundle(root: Path) -> dict[str, object]:
    try:
        return dict(json.loads((root / BUNDLE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


class Console:
    """Tells a person at a terminal with a bar, and a log file with a line now and then. All of it on standard error."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar = ""

    def say(self, text: str) -> None:
        """Print a line."""
        self._end_bar()
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Print a line that nobody should miss."""
        self.say(f"warning: {text}")

    def show(self, progress: Progress) -> None:
        """Draw the bar again, or print a line if it is time."""
        amount = f"{gigabytes(progress.done_bytes)} of {gigabytes(progress.total_bytes)}"
        if not self._is_terminal:
            if progress.is_landmark:
                self.say(f"{progress}, {amount}")
            return
        text = f"{bar(progress.share, _BAR_COLUMNS, sys.stderr)} {progress}, {amount}"
        print(f"\r{text}{' ' * (len(self._bar) - len(text))}", end="", file=sys.stderr, flush=True)
        self._bar = text

    def _end_bar(self) -> None:
        if self._bar:
            print(file=sys.stderr)
            self._bar = ""
