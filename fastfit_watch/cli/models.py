"""The `models` commands: list, pull and verify bundles."""

from __future__ import annotations

import difflib
import json
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
    BundleCondition,
    BundleState,
    check_sizes,
    compare_content,
    locate_parts,
)
from fastfit_watch.bundles.progress import ProgressListener
from fastfit_watch.bundles.provision import _MEND, link_local_repositories
from fastfit_watch.bundles.sizes import SIZES, BundleSize
from fastfit_watch.domain.errors import BundleError, ConfigError
from fastfit_watch.domain.text import gigabytes


@dataclass(frozen=True)
class BundleRow:
    """A bundle as `models list` shows it.

    bytes : on the disk now, the engine's converted copies included.
    disk_bytes, card_bytes : what it takes at most, about, on the disk and on the card; None where nobody knows.
    """

    name: str
    state: str
    bytes: int
    revision: str
    licence: str
    folder: str
    faults: tuple[str, ...] = ()
    disk_bytes: int | None = None
    card_bytes: int | None = None


def list_bundles(models: Path, *, as_json: bool) -> None:
    """Print every bundle that is known or there. Looks at names and sizes only."""
    others = sorted(path.parent.name for path in models.glob(f"*/{BUNDLE}") if path.parent.name not in KNOWN)
    rows = [_describe_bundle(name, models) for name in (*KNOWN, MINI, *others)]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    cells: list[tuple[str, ...]] = [("name", "state", "here", "disk", "card", "revision", "licence")]
    cells += [_cells(row) for row in rows]
    *widths, _ = (max(map(len, column)) for column in zip(*cells, strict=True))
    for *line, licence in cells:
        print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)) + f"  {licence}")
    print("here: on this disk now; disk, card: what a bundle takes at most, about, with all of it on the card")
    for fault in (fault for row in rows if row.state == BundleState.DAMAGED for fault in row.faults):
        print(fault)


def _cells(row: BundleRow) -> tuple[str, ...]:
    disk = "?" if row.disk_bytes is None else gigabytes(row.disk_bytes)
    card = "?" if row.card_bytes is None else gigabytes(row.card_bytes) if row.card_bytes else "none"
    return (row.name, row.state, gigabytes(row.bytes), disk, card, row.revision or "-", row.licence)


def _describe_bundle(name: str, models: Path) -> BundleRow:
    root, bundle = bundle_folder(name, models), known_bundle(name)
    condition = check_sizes(root, bundle) if bundle is not None else BundleCondition(BundleState.COMPLETE)
    said = _read_bundle(root)
    revision = condition.record.revision if condition.record is not None else str(said.get("revision", ""))
    licence = str(said.get("licence", f"{LICENCE} of {bundle.repositories[0].name}" if bundle is not None else ""))
    state = "shipped" if root == SHIPPED_MINI else condition.state.value
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    needs = BundleSize(size, 0) if root == SHIPPED_MINI else SIZES.get(name)
    at_most = (needs.disk_bytes, needs.card_bytes) if needs is not None else (None, None)
    return BundleRow(name, state, size, revision, licence, str(root), condition.faults, *at_most)


def verify_bundles(names: Sequence[str], models: Path, listener: ProgressListener) -> None:
    """Hash every file of these bundles, by default of all that are there, and print what is wrong.

    Raises
    ------
    BundleError : something is. ConfigError : a name is unknown.
    """
    wanted = [_known(name) for name in names] or [
        bundle for bundle in KNOWN.values() if check_sizes(models / bundle.name, bundle).state is not BundleState.ABSENT
    ]
    if not wanted:
        print(f"No fetched bundle lies in {models}.")
    faults = [fault for bundle in wanted for fault in _verify(bundle, models / bundle.name, listener)]
    if faults:
        raise BundleError("\n".join(faults), hint=_MEND)


def _verify(bundle: KnownBundle, root: Path, listener: ProgressListener) -> list[str]:
    condition = check_sizes(root, bundle)
    if condition.record is None:
        if condition.state is BundleState.COMPLETE:
            print(
                f"{bundle.name}: {len(locate_parts(root, bundle))} files that nobody recorded. None is cut off;"
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


def pull_bundles(names: Sequence[str], models: Path, listener: ProgressListener, *, update: bool) -> None:
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

        if check_sizes(root, bundle).state is BundleState.ABSENT:
            link_local_repositories(root, bundle, models, listener)
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
