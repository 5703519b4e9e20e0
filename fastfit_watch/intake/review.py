"""Judges an upload by its listing, its manifest and SHA256SUMS, then by its pictures: for the daemon and for `check`.

Nothing here changes a file or waits: the caller lists, hashes and decodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fastfit_watch.domain.errors import ManifestError, UploadError
from fastfit_watch.domain.job import Status
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.text import can_be_shown, one_line
from fastfit_watch.intake.checksums import absent_files, mismatched_files, proven_files, read_sums
from fastfit_watch.intake.file_names import SUMS, control_name, is_litter, is_ready_mark
from fastfit_watch.intake.manifest import MANIFEST_NAMES, Manifest, misnamed_manifest, read_manifest
from fastfit_watch.intake.upload_folder import Listing, read_small

NAMES_SHOWN = 5
WRITING = "still being written"
# How the decoder's sentence on a picture goes that may only be incomplete.
_EARLY = "ends early"


@dataclass(frozen=True)
class Verdict:
    """The state and reason to record for an upload that cannot be claimed yet.

    lasting: only a change of the folder can alter it. until_still: that, or that the folder has been still for long
    enough.
    """

    status: Status
    reason: str
    lasting: bool = True
    until_still: bool = False


NOT_STILL = Verdict(Status.WAITING, WRITING, lasting=False, until_still=True)


@dataclass(frozen=True)
class Findings:
    """What is known of an upload.

    faults: sentences why it is unusable, whatever else may come. content_faults: the same, unless a file is still
    being written. awaited: what has not come yet, beside files that the manifest names. text: the bytes of the
    manifest. sums: file name, composed -> sha256 after SHA256SUMS. proven: files that match it. is_marked_ready: a
    file READY says that all is there.
    """

    faults: tuple[str, ...] = ()
    content_faults: tuple[str, ...] = ()
    awaited: tuple[str, ...] = ()
    manifest_name: str = ""
    text: bytes = b""
    manifest: Manifest | None = None
    sums: Mapping[str, str] = field(default_factory=dict)
    proven: frozenset[str] = frozenset()
    is_marked_ready: bool = False

    @property
    def unused(self) -> str:
        """A sentence on pictures that no look uses, such as those that a pattern leaves out; empty if all are used."""
        if self.manifest is None or not self.manifest.unused:
            return ""
        return f"no look uses {_some(self.manifest.unused)}"

    @property
    def problems(self) -> tuple[str, ...]:
        """Every reason why the upload cannot be used as it is, a file that is missing with its line."""
        missing = (
            f"{self.manifest_name}:{file.line}: {file.name!r} is missing. {file.hint}".rstrip()
            for file in (self.manifest.missing_files if self.manifest is not None else ())
        )
        return (*self.faults, *self.content_faults, *missing, *self.awaited)

    def judge(self, *, is_still: bool) -> Verdict | Manifest:
        """Return the manifest of an upload that may be claimed, or what stands in the way.

        is_still: nothing has changed for long enough.
        """
        if self.faults:
            return Verdict(Status.INVALID, " ".join(self.faults))
        whole = is_still or self.is_marked_ready
        if self.content_faults:
            # Half a manifest is no fault as long as the other half may come.
            return Verdict(Status.INVALID, " ".join(self.content_faults)) if whole else NOT_STILL
        if self.manifest is None or self.manifest.missing or self.awaited:
            return Verdict(Status.WAITING, "; ".join([*self._missing(), *self.awaited]))
        return self.manifest if whole else NOT_STILL

    def _missing(self) -> list[str]:
        """One sentence for all missing files, or none."""
        if self.manifest is None or not self.manifest.missing:
            return []
        hints = [f"{self.manifest_name}:{file.line}: {file.hint}" for file in self.manifest.missing_files if file.hint]
        return [f"missing {_some(self.manifest.missing)}" + (f" ({' '.join(hints[:NAMES_SHOWN])})" if hints else "")]

    def compare(self, hashes: Mapping[str, str]) -> Findings:
        """Add what SHA256SUMS says of the files used. hashes: name -> sha256 of each."""
        unlike = mismatched_files(self.sums, hashes)
        awaited = (f"{_some(unlike)} does not match {SUMS} yet",) if unlike else ()
        return replace(self, proven=proven_files(self.sums, hashes), awaited=self.awaited + awaited)

    def add_pictures(self, facts: Mapping[str, object]) -> Findings:
        """Add all faults of all pictures. facts: for each what it is, or a sentence (str) what is wrong with it.

        A picture that only ends early may still be completed, unless SHA256SUMS proves that it came as it is.
        """
        faults = {name: fact for name, fact in facts.items() if isinstance(fact, str)}
        early = {name for name, fault in faults.items() if _EARLY in fault}
        if faults and early == set(faults) and not early & self.proven:
            return replace(self, awaited=(*self.awaited, " ".join(faults.values())))
        sentences = (
            f"{fault} SHA256SUMS proves that it came whole: save it anew." if name in early & self.proven else fault
            for name, fault in faults.items()
        )
        return replace(self, content_faults=(*self.content_faults, *sentences))


def review(folder_fd: int, listing: Listing, limits: Limits) -> Findings:
    """Judge an open folder by its names and its small text files. Raises OSError where one cannot be read."""
    present = [name for name in MANIFEST_NAMES if name in listing.names]
    found = Findings(
        faults=listing.faults,
        is_marked_ready=any(is_ready_mark(name) for name in listing.names),
        manifest_name=present[0] if present else "",
    )
    if len(present) > 1:
        return replace(found, faults=(*found.faults, f"there are both {' and '.join(present)}. Keep one of them."))
    if not present:
        other = misnamed_manifest(listing.names)
        hint = f": {other!r} is there; rename it" if other else ""
        found = replace(found, awaited=(f"no {MANIFEST_NAMES[0]} yet{hint}",))
    elif present[0] not in listing.unusable:
        found = _review_manifest(found, folder_fd, listing, limits)
    if listing.partial:
        found = replace(found, awaited=(*found.awaited, f"{_some(listing.partial)} is not uploaded to its end yet"))
    if SUMS in listing.names and SUMS not in listing.unusable:
        found = _review_sums(found, folder_fd, listing, limits)
    return found


def _review_manifest(found: Findings, folder_fd: int, listing: Listing, limits: Limits) -> Findings:
    try:
        text = read_small(folder_fd, found.manifest_name, limits.manifest_bytes)
        manifest = read_manifest(text, found.manifest_name, listing.names)
    except ManifestError as error:
        return replace(found, content_faults=tuple(map(str, error.faults)))
    except UploadError as error:
        return replace(found, content_faults=(str(error),))
    found = replace(found, text=text, manifest=manifest)
    # A pattern may find what the manifest cannot name.
    odd = [name for name in manifest.files if not can_be_shown(name)]
    if odd:
        found = replace(found, faults=(*found.faults, f"{_some(odd)} has characters that cannot be shown. Rename it."))
    return found


def _review_sums(found: Findings, folder_fd: int, listing: Listing, limits: Limits) -> Findings:
    try:
        text = read_small(folder_fd, SUMS, limits.manifest_bytes)
        sums = read_sums(text)
    except UploadError as error:
        return replace(found, content_faults=(*found.content_faults, str(error)))
    told = () if found.manifest is None else found.manifest.missing
    absent = [name for name in absent_files(sums, (*listing.names, *told)) if not _is_left_out(name)]
    if absent:
        found = replace(found, awaited=(*found.awaited, f"missing {_some(absent)}, which {SUMS} names"))
    return replace(found, sums=sums)


def _is_left_out(name: str) -> bool:
    """Does a file of this name not count, so that clients may leave it behind?"""
    return is_litter(name) or control_name(name) is not None


def _some(names: Sequence[str]) -> str:
    """The first few names, in one line."""
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(one_line(name) for name in names[:NAMES_SHOWN])
    return shown + (f" and {more} more" if more > 0 else "")
