"""Reads the receipts that a worker leaves for finished looks."""

from __future__ import annotations

import json
from pathlib import Path

from fastfit_watch.domain.job import LookResult


def withheld_receipt(folder: Path, key: str) -> Path:
    """Where the worker leaves the receipt of a look whose picture is withheld in `folder`."""
    return folder / f"{key}.json"


def read_receipt(text: str) -> LookResult:
    """The result that was written down before its picture became visible. Raises ValueError or TypeError."""
    return LookResult(**json.loads(text))
