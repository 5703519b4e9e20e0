"""Paths where a test may cut the program short, to prove that no crash and no full disk loses work."""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "FASTFIT_FAILPOINT"
LIST = "list:"


def failpoint(name: str) -> None:
    """Do nothing, unless the environment names this place: `name:n` kills the process at the n-th visit.

    `name:n:ENOSPC` raises that OSError instead, at the n-th visit and at every later one until the variable is
    removed. Several places are separated by spaces. The countdown lives in the environment, so this module holds no
    state. `list:FILE` only adds a line with
    the name to the file, so that a campaign learns which places there are.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    if wanted.startswith(LIST):
        with open(wanted.removeprefix(LIST), "a", encoding="utf-8") as file:  # noqa: PTH123 - pathlib loads slowly
            file.write(f"{name}\n")
        return
    paths = wanted.split()
    found = next((place for place in paths if place.split(":")[0] == name), None)
    if found is None:
        return
    _, visits, *error = found.split(":")
    if int(visits) > 1:
        paths[paths.index(found)] = ":".join([name, str(int(visits) - 1), *error])
        os.environ[VARIABLE] = " ".join(paths)
        return
    if not error:
        os.kill(os.getpid(), signal.SIGKILL)
    code = getattr(errno, error[0])
    raise OSError(code, os.strerror(code), name)
