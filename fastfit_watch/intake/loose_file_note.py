"""Notes in the ledger which files lie directly in `inputs/`, and warns of them once."""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from fastfit_watch.domain.loose_files import LOOSE_NOTE, LooseFiles
from fastfit_watch.storage.ledger import Ledger


class LooseFileNote:
    """Keeps the note up to date. The warning waits until no more files come: a whole job may be on its way."""

    def __init__(self, ledger: Ledger, settle_s: float) -> None:
        self._ledger, self._settle_s = ledger, settle_s
        self._noted: LooseFiles | None = None
        self._since_s = 0.0
        self._warned = LooseFiles()

    def update(self, names: Sequence[str], clock_s: float) -> None:
        """Take over what a scan found. clock_s: steady seconds."""
        loose = LooseFiles.of(names)
        if loose != self._noted:
            self._ledger.put_note(LOOSE_NOTE, loose.to_note())
            self._noted, self._since_s = loose, clock_s
        if loose != self._warned and clock_s - self._since_s >= self._settle_s:
            self._warned = loose
            if loose.count:
                logger.warning("{}", loose.sentence)
