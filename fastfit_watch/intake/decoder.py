"""Decodes pictures in a process that can be lost: what a picture does to its decoder, it does to that process alone.

The parent sends a line of JSON for each picture and gets one back. The child may use a bounded amount of memory, and
one picture a bounded time; a child that is lost or late is ended and replaced.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from fastfit_watch.domain.errors import ImageError, StorageError
from fastfit_watch.imaging.codec import ImageFacts, measure
from fastfit_watch.system.failpoints import failpoint
from fastfit_watch.system.malloc import keep_freed_memory

if TYPE_CHECKING:
    from fastfit_watch.domain.limits import Limits

_START_S = 60.0
_TRIES = 2
_CHUNK_BYTES = 64 * 1024
_ANSWER_BYTES = 1024 * 1024
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO or a device must not wait for its other end.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Errors of opening that are the file's own fault. Any other one is the machine's.
_FILE_ERRNOS = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENXIO}
_PR_SET_PDEATHSIG = 1
# Of freed memory: that of small pictures is kept for the next, that of large ones given back.
_LARGEST_KEPT_BYTES, _KEPT_BYTES = 8 * 1024 * 1024, 32 * 1024 * 1024


@dataclass(frozen=True)
class _ChildLimits:
    """The settings that the child needs; it does without the room that reads them, and so stays small."""

    picture_bytes: int
    picture_pixels: int
    decode_memory_bytes: int


class _Lost(Exception):  # noqa: N818 - a condition that is dealt with here
    """The child has ended."""


class _Late(Exception):  # noqa: N818 - a condition that is dealt with here
    """The child has not answered in time."""


class Decoder:
    """Tells what pictures are. The child is started with the first picture and kept. For one thread at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child: _Child | None = None

    def inspect(self, folder: Path, names: Sequence[str]) -> Mapping[str, ImageFacts | str]:
        """Decode pictures of a folder. Returns for each name what it is, or a sentence what is wrong with it.

        Raises StorageError where the disk fails or the child cannot be started: no picture is to blame for that.
        """
        return {name: self._inspect(folder, name) for name in names}

    def close(self) -> None:
        """End the child. The next picture would start another."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _inspect(self, folder: Path, name: str) -> ImageFacts | str:
        for _ in range(_TRIES):
            # A child may also be lost to something else, such as the kernel's search for memory: one more try.
            try:
                answer = self._running_child().ask({"folder": os.fspath(folder), "name": name}, self._limits.decode_s)
                return _understand(answer, name)
            except _Late:
                self.close()
                return f"{name!r} takes more than {self._limits.decode_s:g} s to decode. Save it smaller, or anew."
            except _Lost:
                self.close()
        return f"{name!r} makes the program that decodes it crash. Save it anew."

    def _running_child(self) -> _Child:
        if self._child is None:
            try:
                self._child = _Child(self._limits)
            except (OSError, _Lost, _Late) as error:
                raise StorageError(
                    "The process that decodes pictures cannot be started.", hint="The machine may be out of memory."
                ) from error
        return self._child


class _Child:
    """The decoding process, seen from its parent. Ready for questions once it is made."""

    def __init__(self, limits: Limits) -> None:
        told = {limit.name: getattr(limits, limit.name) for limit in fields(_ChildLimits)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastfit_watch.intake.decoder", json.dumps(told), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C at the terminal is the daemon's to handle
        )
        self._questions = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        self._received = b""
        try:
            self._receive(_START_S)
        except BaseException:
            self.end()
            raise

    def ask(self, question: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
        """Send a line and return the answer. Raises _Lost or _Late; the child is of no use then."""
        try:
            self._questions.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError as error:
            raise _Lost from error
        return self._receive(timeout_s)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._questions.close()
        self._answers.close()

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        """The child's next line."""
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        deadline_s = time.monotonic() + timeout_s
        while b"\n" not in self._received:
            if not poller.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
                raise _Late
            chunk = self._answers.read(_CHUNK_BYTES)
            if not chunk or len(self._received) > _ANSWER_BYTES:
                raise _Lost
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise _Lost from error
        if not isinstance(answer, dict):
            raise _Lost
        return answer


def _understand(answer: dict[str, Any], name: str) -> ImageFacts | str:
    if "disk" in answer:
        raise StorageError(f"{name!r} cannot be read: {answer['disk']}.", hint="Check the disk.")
    return str(answer["fault"]) if "fault" in answer else ImageFacts(**answer)


def main(arguments: Sequence[str]) -> int:
    """Be the child: answer each line of standard input with a line, until the input ends.

    arguments: its limits as JSON, and the process id of its parent.
    """
    from PIL import Image

    limits = _ChildLimits(**json.loads(arguments[0]))
    _confine(limits.decode_memory_bytes)
    if os.getppid() != int(arguments[1]):
        return 1  # the parent ended before its end could be noticed
    Image.preinit()  # so that the first picture is not charged for it
    _say({"ready": True})
    for line in sys.stdin.buffer:
        question = json.loads(line)
        _say(_answer(question["folder"], question["name"], limits))
    return 0


def _confine(memory_bytes: int) -> None:
    """Bound what this process may use, and let it end with its parent."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    bound = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    keep_freed_memory(_LARGEST_KEPT_BYTES, _KEPT_BYTES)
    # A service manager sends this to all processes at once; the parent finishes its picture and then ends this one.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _say(answer: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _answer(folder: str, name: str, limits: _ChildLimits) -> Mapping[str, object]:
    """What one picture is; a fault of its own; or a failure of the machine."""
    try:
        return asdict(_measure(folder, name, limits))
    except ImageError as error:
        return {"fault": str(error)}
    except MemoryError:
        allowed = f"{limits.decode_memory_bytes / 1e6:.0f} MB"
        return {"fault": f"{name!r} takes more than {allowed} of memory to decode. Save it with fewer pixels."}
    except OSError as error:
        if error.errno in _FILE_ERRNOS:
            return {"fault": f"{name!r} cannot be opened ({error.strerror}). Upload the file itself."}
        return {"disk": error.strerror or str(error)}


def _measure(folder: str, name: str, limits: _ChildLimits) -> ImageFacts:
    """Open a plain file directly in the folder, once, and decode it."""
    if "/" in name or name in ("", ".", ".."):
        raise ImageError(f"{name!r} is not in the folder.")
    folder_fd = os.open(folder, _FOLDER_FLAGS)
    try:
        file_fd = os.open(name, _FILE_FLAGS, dir_fd=folder_fd)
    finally:
        os.close(folder_fd)
    try:
        if not stat.S_ISREG(os.fstat(file_fd).st_mode):
            raise ImageError(f"{name!r} is no plain file.", hint="Upload the picture itself.")
        failpoint("inspector.decode")
        with os.fdopen(file_fd, "rb", closefd=False) as file:
            return measure(file, limits, name)
    finally:
        os.close(file_fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
