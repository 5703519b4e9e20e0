"""Decodes pictures in a process of its own, so that a picture made to harm costs that process alone.

The parent sends a line of JSON for each picture and receives one back. The child may use a bounded amount of memory,
and a bounded processor time for each picture. A child that crashes or takes too long is ended and replaced.
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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from fastfit_watch.domain.errors import ImageError, StorageError
from fastfit_watch.imaging.codec import ImageFacts, measure
from fastfit_watch.system.failpoints import failpoint
from fastfit_watch.system.malloc import keep_freed_memory

if TYPE_CHECKING:
    from fastfit_watch.domain.limits import Limits

_START_S = 20.0  # of processor time, to start
_TRIES = 2
_PATIENCE = 10  # a picture may take so many times its processor time while others have the processor
_SHORTEST_WAIT_S = 0.1
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
    """The limits that the child needs. It does not import the module of the settings, and so stays small."""

    picture_bytes: int
    picture_pixels: int
    decode_memory_bytes: int


class _Lost(Exception):  # noqa: N818 - a condition that is dealt with here
    """The child has ended."""


class _Late(Exception):  # noqa: N818 - a condition that is dealt with here
    """The child has used all of its processor time for one picture."""


class _Stuck(Exception):  # noqa: N818 - a condition that is dealt with here
    """The child does not get on, and uses no processor time: the machine was frozen, or its disk does not answer."""


class Decoder:
    """Finds out what pictures are. The child is started with the first picture and kept. For one thread at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child: _Child | None = None

    def inspect(
        self, folder: Path, names: Sequence[str], proven: Collection[str] = ()
    ) -> Mapping[str, ImageFacts | str]:
        """Decode pictures of a folder. Returns for each name what it is, or a sentence what is wrong with it.

        proven: those that have come whole, as a sum proves.

        Raises StorageError where the disk fails, or the child cannot be started or does not get on: no picture is to
        blame for that.
        """
        return {name: self._inspect(folder, name, name in proven) for name in names}

    def close(self) -> None:
        """End the child. The next picture would start another."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _inspect(self, folder: Path, name: str, is_proven: bool) -> ImageFacts | str:
        stuck = False
        for _ in range(_TRIES):
            # A child may also be lost to something else, such as the kernel's search for memory: one more try.
            try:
                question: dict[str, str | bool] = {"folder": os.fspath(folder), "name": name, "is_whole": is_proven}
                answer = self._running_child().ask(question, self._limits.decode_s)
                return _understand(answer, name)
            except _Late:
                self.close()
                return f"{name!r} takes more than {self._limits.decode_s:g} s to decode. Save it smaller, or anew."
            except (_Lost, _Stuck) as error:
                self.close()
                stuck = isinstance(error, _Stuck)
        if stuck:
            raise StorageError(f"The process that decodes {name!r} does not get on.", hint="Check the disk.")
        return f"{name!r} makes the program that decodes it crash. Save it anew."

    def _running_child(self) -> _Child:
        if self._child is None:
            try:
                self._child = _Child(self._limits)
            except (OSError, _Lost, _Late, _Stuck) as error:
                raise StorageError(
                    "The process that decodes pictures cannot be started.", hint="The machine may be out of memory."
                ) from error
        return self._child


class _Child:
    """The decoding process as its parent uses it. It is ready for questions once it is made."""

    def __init__(self, limits: Limits) -> None:
        bounds = {limit.name: getattr(limits, limit.name) for limit in fields(_ChildLimits)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastfit_watch.intake.decoder", json.dumps(bounds), str(os.getpid())],
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

    def ask(self, question: Mapping[str, str | bool], processor_s: float) -> dict[str, Any]:
        """Send a line and return the answer, for which the child may use `processor_s` seconds of its processor.

        Raises _Lost, _Late or _Stuck; the child must be replaced then.
        """
        try:
            self._questions.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError as error:
            raise _Lost from error
        return self._receive(processor_s)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._questions.close()
        self._answers.close()

    def _receive(self, processor_s: float) -> dict[str, Any]:
        """Return the child's next line.

        What counts is the child's own processor time: on a busy machine, or on one that was frozen for a while, a
        picture takes longer and is not to blame.
        """
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        began_s = used_s = self._processor_s()
        give_up_s = time.monotonic() + _PATIENCE * processor_s
        while b"\n" not in self._received:
            left_s = began_s + processor_s - used_s
            if not poller.poll(max(_SHORTEST_WAIT_S, left_s) * 1000):
                before_s, used_s = used_s, self._processor_s()
                if used_s - began_s >= processor_s:
                    raise _Late
                if used_s == before_s or time.monotonic() > give_up_s:
                    raise _Stuck
                continue
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

    def _processor_s(self) -> float:
        """Seconds of processor time that the child has used so far. Raises _Lost if it has ended."""
        try:
            # The id of a process's clock: its pid inverted, shifted by three, and CPUCLOCK_SCHED = 2 (posix-timers.h).
            return time.clock_gettime((~self._process.pid << 3) | 2)
        except OSError as error:
            raise _Lost from error


def _understand(answer: dict[str, Any], name: str) -> ImageFacts | str:
    if "disk" in answer:
        raise StorageError(f"{name!r} cannot be read: {answer['disk']}.", hint="Check the disk.")
    return str(answer["fault"]) if "fault" in answer else ImageFacts(**answer)


def main(arguments: Sequence[str]) -> int:
    """Run as the child: answer each line of standard input with a line, until the input ends.

    arguments: the limits as JSON, and the process id of the parent.
    """
    from PIL import Image

    limits = _ChildLimits(**json.loads(arguments[0]))
    _confine(limits.decode_memory_bytes)
    if os.getppid() != int(arguments[1]):
        return 1  # the parent ended before its end could be noticed
    Image.preinit()  # so that the first picture is not charged for it
    _send({"ready": True})
    for line in sys.stdin.buffer:
        question = json.loads(line)
        _send(_answer(question["folder"], question["name"], question["is_whole"], limits))
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


def _send(answer: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _answer(folder: str, name: str, is_whole: bool, limits: _ChildLimits) -> Mapping[str, object]:
    """Return what one picture is, a fault of its own, or a failure of the machine."""
    try:
        return asdict(_measure(folder, name, is_whole, limits))
    except ImageError as error:
        return {"fault": str(error)}
    except MemoryError:
        allowed = f"{limits.decode_memory_bytes / 1e6:.0f} MB"
        return {"fault": f"{name!r} takes more than {allowed} of memory to decode. Save it with fewer pixels."}
    except OSError as error:
        if error.errno in _FILE_ERRNOS:
            return {"fault": f"{name!r} cannot be opened ({error.strerror}). Upload the file itself."}
        return {"disk": error.strerror or str(error)}


def _measure(folder: str, name: str, is_whole: bool, limits: _ChildLimits) -> ImageFacts:
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
            return measure(file, limits, name, is_whole)
    finally:
        os.close(file_fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
