"""A spool and its outputs as version 0.1.0 (commit 96e83a8) left them when it was killed.

The archive was made by that version's own code; `make.py` inside it is the program. Its pictures have 4x3 pixels.

    spring    done and reported, 2 pictures      summer   running: 1 picture recorded, 1 with receipt and picture
    failed    its only look failed                        only, 1 look in work, 1 queued
    shy       its only picture is withheld       late     queued, priority high
    dropped   cancelled                          open     waiting, no manifest yet
"""

from __future__ import annotations

import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("spool-0.1.0.tar.gz")


def unpack_former_spool(folder: Path) -> Path:
    """Unpack `inputs/` and `outputs/` into a folder, and return the folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    (folder / "inputs" / ".spool").chmod(0o700)
    return folder
