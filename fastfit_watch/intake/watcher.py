"""When to look at `inputs/`, and what stands there. Events only ring a bell; the scan is the truth.

Only `inputs/` itself is watched, not the folders in it: a watch on every folder would grow with the spool, and the
kernel drops it silently when its limit is reached. Changes inside a folder are found by the timed scan.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from watchdog.events import DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from fastfit_watch.domain.errors import StorageError

# On these, changes made by another machine raise no events here.
REMOTE_FILESYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "virtiofs", "vboxsf")
)
EVENTS = "events"
# Room for the "-2" of a name that comes again, in the 255 bytes of a file name.
LONGEST_NAME_BYTES = 200
RESERVED_NAMES = frozenset({"index.html", "gallery"})
Stamp = tuple[int, int, int]
"""Inode, mtime_ns and ctime_ns of a folder: they change when something is made, removed or renamed in it."""
EVENT_KINDS: list[type[FileSystemEvent]] = [DirCreatedEvent, DirMovedEvent, DirDeletedEvent]


class Bell:
    """Wakes a waiting loop. Ringing twice before anyone listens is ringing once."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def ring(self) -> None:
        """Wake the loop, now or at its next wait."""
        self._rung.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the bell, at most `timeout_s`. Returns whether it rang."""
        rang = self._rung.wait(timeout_s)
        self._rung.clear()
        return rang


class Watcher:
    """Rings the bell when something appears in, moves into or leaves `inputs/`.

    `mode` is "events", or "polling: " and why: then only timed scans find uploads. It is never an error. `is_remote`:
    `inputs/` lies on a network filesystem.
    """

    def __init__(self, inputs: Path, bell: Bell, mode: Literal["auto", "poll"] = "auto") -> None:
        self._inputs = inputs
        self._bell = bell
        self._wanted = mode
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None
        self._arrivals: set[str] = set()
        self._lock = threading.Lock()
        self.mode = "polling: not started"
        self.is_remote = False

    def start(self) -> None:
        """Begin to watch, or say in `mode` why that cannot be."""
        self.stop()
        self.mode = self._begin()

    def stop(self) -> None:
        """Stop watching. Safe to call twice."""
        observer, self._observer = self._observer, None
        self.mode = "polling: stopped"
        if observer is not None:
            observer.stop()
            if observer.is_alive():
                observer.join()

    def revive(self) -> None:
        """Start again if the observer died, or if `inputs/` is not the folder it was (removed, remounted)."""
        if self._wanted == "auto" and not self._is_sound():
            self.start()

    def take_arrivals(self) -> set[str]:
        """Return, once, the names of folders that were renamed from a dot-name: they came whole."""
        with self._lock:
            arrivals, self._arrivals = self._arrivals, set()
        return arrivals

    def notice(self, source: str, target: str) -> None:
        """Take in one event, by paths; `target` is empty unless something was renamed."""
        came, left = Path(target or source).name, Path(source).name
        if came.startswith("."):
            return
        if target and left.startswith("."):
            with self._lock:
                self._arrivals.add(came)
        self._bell.ring()

    def _begin(self) -> str:
        try:
            self._watched = _identity(self._inputs)
            kind = filesystem_kind(self._inputs)
        except OSError as error:
            return f"polling: {self._inputs} cannot be read ({error.strerror})"
        self.is_remote = kind in REMOTE_FILESYSTEMS or kind.startswith("fuse")
        if self._wanted == "poll":
            return "polling: asked for in the configuration"
        if self.is_remote:
            return f"polling: {self._inputs} is on {kind}, which reports no changes made elsewhere"
        try:
            observer = Observer()
        except OSError as error:
            return f"polling: {_explain(error)}"
        try:
            observer.schedule(_Handler(self.notice), str(self._inputs), event_filter=EVENT_KINDS)
            observer.start()
        except OSError as error:
            observer.stop()
            return f"polling: {_explain(error)}"
        self._observer = observer
        return EVENTS

    def _is_sound(self) -> bool:
        if self._observer is None or not self._observer.is_alive():
            return False
        threads = [*self._observer.emitters, getattr(self._observer, "_inotify_fd", self._observer)]
        try:
            return all(thread.is_alive() for thread in threads) and _identity(self._inputs) == self._watched
        except OSError:
            return False


class _Handler(FileSystemEventHandler):
    def __init__(self, notice: Callable[[str, str], None]) -> None:
        self._notice = notice

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._notice(os.fsdecode(event.src_path), os.fsdecode(event.dest_path))


@dataclass(frozen=True)
class Sighting:
    """One folder in `inputs/`.

    name: as it is on disk. title: how it is called everywhere else; the name itself, unless that cannot be shown.
    fault: empty, or a sentence why this can be no upload.
    stamp: tells whether something was made or removed in it.
    """

    name: str
    title: str
    fault: str = ""
    stamp: Stamp = field(default=(0, 0, 0), compare=False)


def scan(inputs: Path) -> list[Sighting]:
    """List the uploads: the folders in `inputs/`, dot-names left out, in the order of their names.

    A symlink to a folder is reported as a fault. Loose files are no uploads and are left out. Raises StorageError if
    `inputs/` cannot be read.
    """
    try:
        with os.scandir(inputs) as entries:
            found = [sighting for entry in entries if (sighting := _sight(entry)) is not None]
    except OSError as error:
        raise StorageError(
            f"The folder {inputs} cannot be read: {error.strerror}.", hint="Make it again, or mount it."
        ) from error
    return sorted(found, key=lambda sighting: sighting.name)


def _sight(entry: os.DirEntry[str]) -> Sighting | None:
    name = entry.name
    if name.startswith("."):
        return None
    if entry.is_symlink():
        fault = "it is a symbolic link. Upload a real folder." if _leads_to_folder(entry) else None
        return None if fault is None else Sighting(name, _title(name), fault)
    if not entry.is_dir(follow_symlinks=False):
        return None
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # it is just being removed
    fault = _fault(name)
    stamp = (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)
    return Sighting(name, _title(name) if fault else name, fault, stamp)


def _fault(name: str) -> str:
    """A sentence why a folder of this name can be no upload, or nothing."""
    if not name.isprintable():
        return "its name has characters that cannot be shown. Rename it."
    if len(name) > LONGEST_NAME_BYTES // 4 and len(os.fsencode(name)) > LONGEST_NAME_BYTES:
        return f"its name is longer than {LONGEST_NAME_BYTES} bytes. Rename it."
    return "its name is taken by a page in outputs/. Rename it." if name in RESERVED_NAMES else ""


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _title(name: str) -> str:
    """The name in characters that can be shown, and short enough for a file name."""
    shown = "".join(part if part.isprintable() else repr(part)[1:-1] for part in name)
    if shown == name and name not in RESERVED_NAMES and len(os.fsencode(name)) <= LONGEST_NAME_BYTES:
        return name
    return f"{shown[:40]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def filesystem_kind(path: Path) -> str:
    """Return the name of the filesystem that holds `path`, as in /proc/self/mountinfo: "ext4", "nfs4", "fuse.sshfs".

    Empty where the kernel does not say. Raises OSError if `path` does not exist.
    """
    wanted = path.resolve(strict=True)
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    kind, longest = "", -1
    for line in lines:
        mounted, _, kinds = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), mounted.split(" ")[4]))
        # Of two mounts on one point, the later line is the one that is seen.
        if wanted.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = kinds.split(" ")[0], len(point.parts)
    return kind


def _identity(folder: Path) -> tuple[int, int]:
    facts = folder.stat()
    return facts.st_dev, facts.st_ino


def _explain(error: OSError) -> str:
    """A sentence for the limits of inotify, whose own messages mislead ("No space left on device")."""
    if error.errno == errno.EMFILE:
        return "the limit of inotify instances is reached (raise fs.inotify.max_user_instances)"
    if error.errno == errno.ENOSPC:
        return "the limit of inotify watches is reached (raise fs.inotify.max_user_watches)"
    return f"events do not work here ({error.strerror or error})"
