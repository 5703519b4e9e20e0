"""A claim with the rights of the service: another account's upload, one shared group, no setgid bit to be set."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.intake.test_claim import make_upload, take

from fastfit_watch.domain.job import Status

ANNA_UID, DAEMON_UID, SHARED_GID = 54321, 54322, 54400
_FCHMOD = {"x86_64": 91, "aarch64": 52}.get(platform.machine())
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2


@pytest.fixture
def inputs() -> Iterator[Path]:
    """A setgid folder for the group, that every account can reach."""
    home = Path(tempfile.mkdtemp(prefix="spool-"))
    home.chmod(0o755)
    inputs = home / "inputs"
    inputs.mkdir()
    os.chown(inputs, DAEMON_UID, SHARED_GID)
    inputs.chmod(0o2770)
    yield inputs
    shutil.rmtree(home)


def _forbid_setgid() -> None:
    """What RestrictSUIDSGID=yes does, for fchmod(2): seccomp answers EPERM where the mode has the setgid bit."""
    load, equal, test, answer = 0x20, 0x15, 0x45, 0x06
    allow, refuse = 0x7FFF0000, 0x00050001
    program = [(load, 0, 0, 0), (equal, 0, 3, _FCHMOD), (load, 0, 0, 24), (test, 0, 1, stat.S_ISGID)]
    program += [(answer, 0, 0, refuse), (answer, 0, 0, allow)]
    code = b"".join(struct.pack("<HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(buffer))
    library = ctypes.CDLL(None, use_errno=True)
    assert library.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert library.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.create_string_buffer(header)) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as two accounts")
@pytest.mark.skipif(_FCHMOD is None, reason="the number of fchmod(2) is not known for this machine")
@pytest.mark.parametrize("mode", [0o2770, 0o2775])
def test_the_folder_that_is_put_back_keeps_the_group(mode: int, inputs: Path) -> None:
    """Otherwise a second upload into it would have the uploader's own group, and the daemon could not read it."""
    folder = make_upload(inputs)
    for path in (folder, *folder.iterdir()):
        os.chown(path, ANNA_UID, SHARED_GID)
    folder.chmod(mode)
    child = os.fork()
    if child == 0:
        os.umask(0o007)
        os.setgroups([SHARED_GID])
        os.setgid(SHARED_GID)
        os.setuid(DAEMON_UID)
        _forbid_setgid()
        try:
            folder_fd = os.open(inputs, os.O_RDONLY)
            os.fchmod(folder_fd, 0o2770)
            os._exit(3)
        except PermissionError:
            os._exit(0 if take(inputs).status is Status.QUEUED else 4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    facts = (inputs / "spring").stat()
    assert (facts.st_uid, facts.st_gid) == (DAEMON_UID, SHARED_GID)
    assert stat.S_IMODE(facts.st_mode) & 0o2770 == 0o2770
    assert list((inputs / "spring").iterdir()) == []
