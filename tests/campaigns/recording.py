"""What a daemon and its children did to the disk, in the order in which they did it, and what a disk may hold of it.

A recording begins with what stood there before; that counts as durable. It then knows each creation, write, cut, sync,
rename and removal below one folder, with the data. Files are known by their inodes, so renames confuse nothing.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("recorded_disk.c")
_HEADER = struct.Struct("=c7xqqqqiiq")
MANNERS = ("dropped", "names", "torn", "kept")
"""What may be left of what was not synced: nothing; all names, but no data; all but half of the last write; all."""


@dataclass(frozen=True)
class Record:
    """One change. kind: created, written, t: cut, synced, renamed, u: removed, m: folder made (its first letter)."""

    kind: str
    inode: int
    parent: int
    name: str
    other: int
    new_name: str
    offset: int
    data: bytes


@dataclass
class Thing:
    """A file or folder. `now` and `durable`: content of a file. `entries`: of a folder, as it stands now."""

    is_folder: bool
    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    before_last: bytes | None = None


@dataclass
class _Naming:
    """One change of names. folders: those that hold them; it is durable once one of them is synced, as it is atomic."""

    folders: tuple[Thing, ...]
    removed: tuple[Thing, str] | None
    added: tuple[Thing, str, Thing] | None
    is_durable: bool = False


class Recorder:
    """Prepares the environment of a process that is to be recorded."""

    def __init__(self, place: Path, root: Path) -> None:
        self._root, self._log = root, place / "log"
        library, lock = place / "recorded_disk.so", place / "lock"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
        self._log.touch()
        lock.write_bytes(bytes(8))
        self.environment = {
            "LD_PRELOAD": str(library),
            "RECORDED_ROOT": str(root),
            "RECORDED_LOG": str(self._log),
            "RECORDED_LOCK": str(lock),
        }
        self.disk = Disk(root)

    def records(self) -> list[Record]:
        """Everything that was recorded."""
        return list(_parse(self._log.read_bytes()))


def _parse(log: bytes) -> Iterator[Record]:
    at = 0
    while at < len(log):
        kind, inode, parent, other, offset, name_length, new_length, data_length = _HEADER.unpack_from(log, at)
        at += _HEADER.size
        name = os.fsdecode(log[at : at + name_length])
        at += name_length
        new_name = os.fsdecode(log[at : at + new_length])
        at += new_length
        yield Record(kind.decode(), inode, parent, name, other, new_name, offset, log[at : at + data_length])
        at += data_length


class Disk:
    """A disk that is told every change, and knows what may be left of them."""

    def __init__(self, root: Path) -> None:
        self._things: dict[int, Thing] = {}
        self._base: dict[int, dict[str, Thing]] = {}
        self._namings: list[_Naming] = []
        self._last_written: Thing | None = None
        self.root = self._read(root)

    def _read(self, path: Path) -> Thing:
        thing = Thing(path.is_dir())
        self._things[path.stat().st_ino] = thing
        if thing.is_folder:
            self._base[id(thing)] = {each.name: self._read(each) for each in sorted(path.iterdir())}
        else:
            thing.now = bytearray(path.read_bytes())
            thing.durable = bytes(thing.now)
        return thing

    def take(self, record: Record) -> None:
        """One more change."""
        if record.kind in "cm":
            thing = self._things[record.inode] = Thing(record.kind == "m")
            self._name((self._things[record.parent],), None, (self._things[record.parent], record.name, thing))
        elif record.kind in "wt":
            self._write(self._things[record.inode], record)
        elif record.kind == "s":
            self._sync(self._things[record.inode])
        elif record.kind == "r":
            source, target = self._things[record.parent], self._things[record.other]
            added = (target, record.new_name, self._things[record.inode])
            self._name((source, target), (source, record.name), added)
        else:
            parent = self._things[record.parent]
            self._name((parent,), (parent, record.name), None)

    def _name(
        self,
        folders: tuple[Thing, ...],
        removed: tuple[Thing, str] | None,
        added: tuple[Thing, str, Thing] | None,
    ) -> None:
        self._namings.append(_Naming(folders, removed, added))

    def _write(self, thing: Thing, record: Record) -> None:
        thing.before_last = bytes(thing.now)
        if record.kind == "t":
            del thing.now[record.offset :]
            thing.now.extend(bytes(record.offset - len(thing.now)))
            return
        thing.now.extend(bytes(max(0, record.offset - len(thing.now))))
        thing.now[record.offset : record.offset + len(record.data)] = record.data
        half = len(record.data) // 2
        torn = bytearray(thing.before_last)
        torn.extend(bytes(max(0, record.offset - len(torn))))
        torn[record.offset : record.offset + half] = record.data[:half]
        thing.before_last = bytes(torn)
        self._last_written = thing

    def _sync(self, thing: Thing) -> None:
        if thing is self._last_written:
            self._last_written = None
        thing.durable = bytes(thing.now)
        for naming in self._namings:
            naming.is_durable |= any(folder is thing for folder in naming.folders)

    def left(self, manner: str) -> dict[str, bytes | None]:
        """Relative path -> content (None: a folder) of what a power cut may leave, in one of `MANNERS`."""
        folders = {key: dict(entries) for key, entries in self._base.items()}
        for naming in self._namings:
            if manner == "dropped" and not naming.is_durable:
                continue
            if naming.removed is not None:
                folders.get(id(naming.removed[0]), {}).pop(naming.removed[1], None)
            if naming.added is not None:
                folder, name, thing = naming.added
                folders.setdefault(id(folder), {})[name] = thing
        return dict(self._walk(self.root, "", folders, manner))

    def _walk(
        self, folder: Thing, prefix: str, folders: dict[int, dict[str, Thing]], manner: str
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, thing in folders.get(id(folder), {}).items():
            yield f"{prefix}{name}", None if thing.is_folder else self._content(thing, manner)
            if thing.is_folder:
                yield from self._walk(thing, f"{prefix}{name}/", folders, manner)

    def _content(self, thing: Thing, manner: str) -> bytes:
        if manner in ("dropped", "names"):
            return thing.durable
        is_torn = manner == "torn" and thing is self._last_written and thing.before_last is not None
        return thing.before_last if is_torn and thing.before_last is not None else bytes(thing.now)
