"""Every error this project raises on purpose. Messages say what happened, where, and what to do.

FastFitError
├── ConfigError          the configuration file or a command-line option is wrong
├── UploadError          the upload is at fault: the job is `invalid`, never retried
│   ├── ManifestError    one or more faults of outfit.yaml, each with its line
│   └── ImageError       a picture that cannot be used
├── StorageError         disk full or an I/O error: the queue pauses, no job is blamed
├── EngineError          one look failed; the next look is unharmed
│   └── OutOfMemory      the device ran out of memory; retried with less
└── BundleError          weights missing, damaged or not readable
"""

from __future__ import annotations

from dataclasses import dataclass


class FastFitError(Exception):
    """Root of the tree. `message` is one sentence for a person; `hint` says what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ConfigError(FastFitError):
    """A setting or option is unknown, has the wrong type, or contradicts another."""


class UploadError(FastFitError):
    """The upload itself is at fault; trying again without a change cannot help."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a manifest: where, what, and how to mend it. `line` counts from 1; 0 is the whole file."""

    file: str
    line: int
    message: str
    fix: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message} {self.fix}".rstrip()


class ManifestError(UploadError):
    """All faults of one manifest, reported together."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults


class ImageError(UploadError):
    """A picture is missing, unreadable, too large or not a JPEG, PNG, WebP or AVIF."""


class StorageError(FastFitError):
    """The disk is full or failing. Work pauses and resumes by itself; no job is blamed."""


class EngineError(FastFitError):
    """One look could not be made. State of the failed look never reaches the next one."""


class OutOfMemory(EngineError):  # noqa: N818 - named after the condition, like the CUDA error
    """The device ran out of memory while making a look; `stage` says where, empty if that is unknown."""

    def __init__(self, message: str, *, hint: str = "", stage: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stage = stage


class BundleError(FastFitError):
    """Weights are missing, incomplete, damaged, or do not fit this program."""
