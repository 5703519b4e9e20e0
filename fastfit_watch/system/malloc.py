"""How much freed memory a process keeps for what comes next, instead of giving it back to the kernel."""

from __future__ import annotations

import ctypes

# glibc's numbers, mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BYTES, _MOST_BYTES = 32 * 2**20, 256 * 2**20  # the first is glibc's own limit on 64-bit machines


def keep_freed_memory(largest_bytes: int = _LARGEST_BYTES, most_bytes: int = _MOST_BYTES) -> None:
    """Keep freed blocks of up to `largest_bytes`, `most_bytes` in all; larger ones go back at once.

    Left alone, glibc gives pictures back after every use, and the kernel gives the memory anew page by page, which
    takes as long as the work on it; or it learns to keep large blocks for good. Other C libraries do as they like.
    The defaults are for a process that makes pictures.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, largest_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, most_bytes)
