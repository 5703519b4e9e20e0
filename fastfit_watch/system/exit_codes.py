"""What the exit code of a command means."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """0..2 follow custom; the others let a script tell what went wrong. `meaning` is the line in `--help`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INVALID = 3
    INCOMPLETE = 4
    ENGINE = 5
    STORAGE = 6
    DIFFERENT = 7
    UNFIT = 8
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """What it says, for people."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "all done",
    ExitCode.FAILED: "something went wrong; standard error says what. After run --once: a job failed or was cancelled",
    ExitCode.USAGE: "the command line or the configuration is wrong",
    ExitCode.INVALID: "an upload or a picture cannot be used",
    ExitCode.INCOMPLETE: "run --once: an upload is not complete yet, or the queue is paused",
    ExitCode.ENGINE: "the engine cannot be loaded, or could not make the picture",
    ExitCode.STORAGE: "the disk is full or failing",
    ExitCode.UNFIT: "doctor: something keeps this machine from doing the work",
    ExitCode.DIFFERENT: "reproduce: the picture made again is not the same",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}
