"""What was computed once is kept by content: bounded, counted in bytes, on the device first and then in the machine.

Values are never changed once they are kept, and are kept only when they are whole, so a look that fails half-way leaves
nothing behind. Keys name everything that a value depends on, the SHA-256 of the picture before all.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastfit_watch.engine.measurement import usable_bytes

Key = tuple[Hashable, ...]
Kept = TypeVar("Kept")

_PIXEL_BYTES = 3
_GPU_SHARE = 8


@dataclass(frozen=True)
class CacheUse:
    """What a cache did since it was made. Bytes are what it holds now."""

    hits: int
    misses: int
    device_bytes: int
    host_bytes: int


class ContentCache:
    """Least recently used goes first. Any number of threads may use it. At most an eighth of a GPU's memory is taken.

    A value on a full device moves to the machine's memory, and back when it is wanted again; one that costs more to
    move than to compute again is dropped instead.
    """

    def __init__(self, device: str, device_bytes: int, host_bytes: int) -> None:
        self._device = torch.device(device)
        self._limits = {True: min(device_bytes, usable_bytes(self._device) // _GPU_SHARE), False: host_bytes}
        # True: on the device, False: in the machine's memory. The oldest comes first.
        self._kept: dict[bool, OrderedDict[Key, tuple[Any, int, bool]]] = {True: OrderedDict(), False: OrderedDict()}
        self._bytes = {True: 0, False: 0}
        self._hits = self._misses = 0
        self._lock = threading.Lock()

    @property
    def use(self) -> CacheUse:
        """Hits, misses and bytes."""
        with self._lock:
            return CacheUse(self._hits, self._misses, self._bytes[True], self._bytes[False])

    def get(self, key: Key) -> Any | None:
        """The value of a key on the device, or None."""
        with self._lock:
            for tier in (True, False):
                entry = self._kept[tier].get(key)
                if entry is not None:
                    self._kept[tier].move_to_end(key)
                    self._hits += 1
                    break
            else:
                self._misses += 1
                return None
        value, size, movable = entry
        if tier or self._device.type != "cuda" or not has_tensors(value):
            return value
        value = move(value, self._device)
        self._put(key, value, size, movable)
        return value

    def holds(self, key: Key | None) -> bool:
        """Is it kept just now? Not counted, and no promise."""
        with self._lock:
            return any(key in tier for tier in self._kept.values())

    def put(self, key: Key, value: Any, *, movable: bool = True) -> None:
        """Keep a whole value. On a device its work must be done: another thread may read it at once.

        movable : worth moving to the machine's memory when the device is full.
        """
        self._put(key, value, size_of(value), movable)

    def fetch(self, key: Key | None, make: Callable[[], Kept], *, movable: bool = True) -> tuple[Kept, bool]:
        """The value of a key, made now if it is not kept; and whether it was. None makes it and keeps nothing."""
        if key is None:
            return make(), False
        found = self.get(key)
        if found is not None:
            return found, True
        value = make()
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        self.put(key, value, movable=movable)
        return value, False

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            for tier in (True, False):
                self._kept[tier].clear()
                self._bytes[tier] = 0

    def _put(self, key: Key, value: Any, size: int, movable: bool) -> None:
        on_device = self._device.type == "cuda" and has_tensors(value)
        with self._lock:
            self._drop(key)
            self._kept[on_device][key] = value, size, movable
            self._bytes[on_device] += size
            spilled = self._shrink(True)
        for old_key, (old, old_size, old_movable) in spilled:
            if old_movable:
                away = move(old, torch.device("cpu"))
                with self._lock:
                    self._kept[False][old_key] = away, old_size, True
                    self._bytes[False] += old_size
        with self._lock:
            self._shrink(False)

    def _drop(self, key: Key) -> None:
        for tier in (True, False):
            entry = self._kept[tier].pop(key, None)
            if entry is not None:
                self._bytes[tier] -= entry[1]

    def _shrink(self, tier: bool) -> list[tuple[Key, tuple[Any, int, bool]]]:
        """Take out the oldest values until the tier is within its limit."""
        taken = []
        while self._bytes[tier] > self._limits[tier] and self._kept[tier]:
            key, entry = self._kept[tier].popitem(last=False)
            self._bytes[tier] -= entry[1]
            taken.append((key, entry))
        return taken


class HitList:
    """A cache as one look uses it. counts: `garment.hit` or `garment.miss` -> how often, of pictures with a digest."""

    def __init__(self, cache: ContentCache) -> None:
        self._cache = cache
        self.counts: Counter[str] = Counter()

    def holds(self, key: Key | None) -> bool:
        """See `ContentCache.holds`."""
        return self._cache.holds(key)

    def fetch(self, name: str, key: Key | None, make: Callable[[], Kept], *, movable: bool = True) -> Kept:
        """See `ContentCache.fetch`. name : what to call it in reports; an empty one is not mentioned."""
        value, was_kept = self._cache.fetch(key, make, movable=movable)
        if name and key is not None:
            self.counts[f"{name}.{'hit' if was_kept else 'miss'}"] += 1
        return value


def size_of(value: Any) -> int:
    """Bytes of a tensor, array or picture, or of all of them in a dataclass, mapping or sequence."""
    if isinstance(value, Tensor | np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Image.Image):
        return value.width * value.height * _PIXEL_BYTES
    return sum(size_of(part) for part in _parts(value))


def has_tensors(value: Any) -> bool:
    """Is there a tensor in it?"""
    return isinstance(value, Tensor) or any(has_tensors(part) for part in _parts(value))


def move(value: Any, device: torch.device) -> Any:
    """The same with all tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{part.name: move(getattr(value, part.name), device) for part in fields(value)})
    if isinstance(value, dict):
        return {key: move(part, device) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(move(part, device) for part in value)
    return value


def _parts(value: Any) -> list[Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, part.name) for part in fields(value)]
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, tuple) else []
