"""Places where a test may cut the program short, to prove that no crash and no full disk loses work."""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "FASTFIT_FAILPOINT"


def failpoint(name: str) -> None:
    """Do nothing, unless the environment names this place: `name:n` kills the process at the n-th visit.

    `name:n:ENOSPC` raises that OSError instead, at the n-th visit and at every later one until the variable is
    removed. The countdown lives in the environment, so this module holds no state.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted is None or wanted.split(":")[0] != name:
        return
    _, visits, *error = wanted.split(":")
    if int(visits) > 1:
        os.environ[VARIABLE] = ":".join([name, str(int(visits) - 1), *error])
        return
    if not error:
        os.kill(os.getpid(), signal.SIGKILL)
    code = getattr(errno, error[0])
    raise OSError(code, os.strerror(code), name)
