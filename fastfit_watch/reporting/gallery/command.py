"""The line that makes a picture again: `fastfit-watch try-on ...`, to be copied into a shell on the same machine."""

from __future__ import annotations

import shlex
from pathlib import Path

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import LookRecord
from fastfit_watch.domain.options import OPTIONS

_SHIPPED = "mini"


def reproduce_command(config: Config, record: LookRecord, snapshot: Path) -> str:
    """Return the command for a finished look, for sh, bash or zsh; its result lands in the working directory.

    snapshot: the folder in the spool that holds the job's verified uploads. They are what the picture was made from,
    and nobody can change them, so they are named and not the upload.
    """
    look, options, result = record.look, record.look.options, record.result
    files = {"person": look.person, **{slot.value: file for slot, file in look.garments.items()}}
    words = ["fastfit-watch", "try-on", "--bundle", _bundle(config)]
    if config.bundle != _SHIPPED and "/" not in config.bundle:
        words += ["--models", str(config.models.absolute())]
    if result is not None:
        words += ["--device", result.device]
    for slot, file in files.items():
        words += [f"--{slot}", str(snapshot.absolute() / file)]
    # The format follows from --output's extension; whatever else decides about the bytes is named.
    words += [word for name in OPTIONS if name != "format" for word in (f"--{name}", f"{getattr(options, name)}")]
    words += ["--output", f"./{look.key}.{options.format.value}"]
    return " ".join(_quote(word) for word in words)


def _bundle(config: Config) -> str:
    return str(Path(config.bundle).absolute()) if "/" in config.bundle else config.bundle


def _quote(word: str) -> str:
    """One word for a shell. What cannot be seen is spelled out, so that the line shows what it does."""
    if word.isprintable():
        return shlex.quote(word)
    spelled = "".join(_ansi(letter) for letter in word)
    return f"$'{spelled}'"


def _ansi(letter: str) -> str:
    """A letter inside $'...', of the POSIX shell (2024 edition) as bash and zsh know it."""
    if letter in "\\'":
        return "\\" + letter
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
