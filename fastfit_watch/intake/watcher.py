"""When to look at `inputs/`, and what stands there. Events only ring a bell; the scan is the truth.

Only `inputs/` itself is watched, not the folders in it: a watch on every folder would grow with the spool, and the
kernel drops it silently when its limit is reached. Changes inside a folder are found by the timed scan.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from watchdog.events import DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from fastfit_watch.system.filesystem import REMOTE_FILESYSTEMS, filesystem_kind

EVENTS = "events"
"""Inode, mtime_ns and ctime_ns of a folder: they change when something is made, removed or renamed in it."""
EVENT_KINDS: list[type[FileSystemEvent]] = [DirCreatedEvent, DirMovedEvent, DirDeletedEvent]


class Doorbell:
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

    def __init__(self, inputs: Path, doorbell: Doorbell, mode: Literal["auto", "poll"] = "auto") -> None:
        self._inputs = inputs
        self._doorbell = doorbell
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
        self._doorbell.ring()

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
