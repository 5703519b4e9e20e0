"""The files that lie directly in `inputs/` and so belong to no upload: what is noted of them, and the fix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from fastfit_watch.domain.text import one_line

LOOSE_NOTE = "loose_files"
"""Key of the ledger's note that `LooseFiles.to_note` writes."""
_KEPT, _SHOWN = 20, 3
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst")


@dataclass(frozen=True)
class LooseFiles:
    """count: how many there are. names: the first of them, in order, archives first."""

    names: tuple[str, ...] = ()
    count: int = 0

    @classmethod
    def of(cls, names: Sequence[str]) -> LooseFiles:
        """Return what is to be noted of these files."""
        ordered = sorted(names, key=lambda name: (not _is_archive(name), name))
        return cls(tuple(ordered[:_KEPT]), len(names))

    @classmethod
    def from_note(cls, note: str | None) -> LooseFiles:
        """Read a note back; none at all means that there are no loose files."""
        if not note:
            return cls()
        noted = json.loads(note)
        return cls(tuple(noted["names"]), noted["count"])

    def to_note(self) -> str:
        """Return the note, in ASCII: a name may have bytes that are no text."""
        return json.dumps({"names": self.names, "count": self.count})

    @property
    def message(self) -> str:
        """`2 files lie directly in inputs/ and are not used: a.jpg, b.jpg.`"""
        shown = ", ".join(one_line(name) for name in self.names[:_SHOWN])
        if self.count == 1:
            return f"1 file lies directly in inputs/ and is not used: {shown}."
        more = f" and {self.count - _SHOWN} more" if self.count > _SHOWN else ""
        return f"{self.count} files lie directly in inputs/ and are not used: {shown + more}."

    @property
    def fix(self) -> str:
        """What to do about them."""
        if self.names and _is_archive(self.names[0]):
            return f"{one_line(self.names[0])} is an archive: unpack it, and upload the folder."
        return "Put each job's files into a folder of its own in inputs/, together with its outfit.yaml."

    @property
    def sentence(self) -> str:
        """Message and fix in one line."""
        return f"{self.message} {self.fix}"


def _is_archive(name: str) -> bool:
    return name.lower().endswith(_ARCHIVES)
