"""Drawn looks for training: processes draw, shared memory carries, one call takes what is ready.

Training draws its figures while it runs, so it never sees the same look twice in practice and stores no data set.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from queue import Empty
from types import TracebackType

import cv2
import numpy as np
import torch
from torch import Tensor

from fastfit_watch.domain.look import Category
from fastfit_watch.engine.parsers.parsing import Parsing
from fastfit_watch.engine.parsers.pose_drawing import detect_size, draw_pose, resize_back
from fastfit_watch.engine.preprocessing.mask import full_mask, worn_mask
from fastfit_watch.mini.drawing.figures import OUTFITS, DrawnLook, draw_look

PERSON_SIZE = (384, 288)
ACCESSORY_SIZE = (192, 144)
SKIN = 1 + len(Category)  # the label of bare skin in `seen`
HELD_OUT_SEEDS = 1_000_000_000  # training draws seeds below this; evaluation and tests draw from it upwards
_SLOTS = 16  # chunks in flight
_SKIN_LIP = (13, 14, 15, 16, 17)  # face and neck, arms, legs

# Field of a look -> shape and dtype. Garments: `cloth` is upper or dress, `second` is lower. `worn` is a mask, `seen`
# labels the garments of `truth` (label + 1) and its bare skin (`SKIN`).
_FIELDS: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
    "person": ((*PERSON_SIZE, 3), torch.uint8),
    "truth": ((*PERSON_SIZE, 3), torch.uint8),
    "pose": ((*PERSON_SIZE, 3), torch.uint8),
    "full": (PERSON_SIZE, torch.uint8),
    "worn": (PERSON_SIZE, torch.uint8),
    "lip": (PERSON_SIZE, torch.uint8),
    "atr": (PERSON_SIZE, torch.uint8),
    "densepose": (PERSON_SIZE, torch.uint8),
    "seen": (PERSON_SIZE, torch.uint8),
    "points": ((18, 2), torch.float32),
    "cloth": ((*PERSON_SIZE, 3), torch.uint8),
    "second": ((*PERSON_SIZE, 3), torch.uint8),
    "shoe": ((*ACCESSORY_SIZE, 3), torch.uint8),
    "bag": ((*ACCESSORY_SIZE, 3), torch.uint8),
    "outfit": ((), torch.int64),
}
WHOLE_OUTFITS = [outfit for outfit, _ in OUTFITS]
FIELD_OF = {
    Category.UPPER: "cloth",
    Category.DRESS: "cloth",
    Category.LOWER: "second",
    Category.SHOE: "shoe",
    Category.BAG: "bag",
}


def outfit_code(categories: Iterator[Category] | list[Category]) -> int:
    """One bit per category, so that looks with equal outfits can be batched."""
    return sum(1 << category.label for category in categories)


def outfit_categories(code: int) -> list[Category]:
    """The categories of an outfit code, in slot order."""
    return [category for category in Category if code >> category.label & 1]


def draw_pose_picture(look: DrawnLook) -> np.ndarray:
    """Skeleton picture of a drawn person, made as the parser makes it: uint8 (H, W, 3)."""
    size = look.person.shape[:2]
    large = detect_size(size)
    points = np.where(look.keypoints < 0, -1.0, look.keypoints * (large[1] / size[1], large[0] / size[0]))
    return resize_back(draw_pose(points[None], look.scores[None], large), size)


class LookFeed:
    """Draws looks in `processes` processes; `take_ready` hands over the chunks that are ready.

    chunk: looks handed over at once. taken: looks handed over so far.
    """

    def __init__(self, processes: int, first_seed: int, chunk: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._chunk, self.taken = chunk, 0
        self._buffers = {
            name: torch.zeros((_SLOTS * chunk, *shape), dtype=dtype).share_memory_()  # type: ignore[no-untyped-call]
            for name, (shape, dtype) in _FIELDS.items()
        }
        self._free, self._ready = context.Queue(), context.Queue()
        for slot in range(_SLOTS):
            self._free.put(slot)
        self._processes: list[BaseProcess] = [
            context.Process(
                target=_draw_forever,
                args=(self._buffers, self._free, self._ready, chunk, first_seed + index, processes),
                daemon=True,
            )
            for index in range(processes)
        ]
        for process in self._processes:
            process.start()

    def __enter__(self) -> LookFeed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()

    def take_ready(self, device: str, wait_s: float = 0.0, most: int = 2) -> Iterator[dict[str, Tensor]]:
        """Hand over chunks of looks on `device`, field by field: those that are ready.

        wait_s: how long the first may take. most: chunks; the limit leaves time for training where drawing is quicker.
        """
        for turn in range(most):
            try:
                slot = self._ready.get(timeout=wait_s) if wait_s and not turn else self._ready.get_nowait()
            except Empty:
                return
            rows = slice(slot * self._chunk, (slot + 1) * self._chunk)
            yield {name: buffer[rows].to(device, copy=True) for name, buffer in self._buffers.items()}
            self._free.put(slot)
            self.taken += self._chunk


def _draw_forever(buffers: dict[str, Tensor], free: object, ready: object, chunk: int, seed: int, stride: int) -> None:
    """Fill free slots until the parent ends this process, or ends itself. No two processes share a seed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    while True:
        slot = free.get()  # type: ignore[attr-defined]
        for row in range(slot * chunk, (slot + 1) * chunk):
            _fill(buffers, row, draw_look(seed % HELD_OUT_SEEDS, None, PERSON_SIZE, PERSON_SIZE, ACCESSORY_SIZE))
            seed += stride
        ready.put(slot)  # type: ignore[attr-defined]


def _end_with_parent() -> None:
    """End this process once its parent is gone, however that ended: a signal leaves it no time to end its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(0)


def _fill(buffers: dict[str, Tensor], row: int, look: DrawnLook) -> None:
    """Write one look into a row of the shared buffers."""
    categories = list(look.garments)
    pose = draw_pose_picture(look)
    fields: dict[str, np.ndarray] = {
        "person": look.person,
        "truth": look.truth,
        "pose": pose,
        "full": full_mask(look.densepose, look.lip, look.atr),
        "worn": worn_mask(categories, Parsing(pose, look.densepose, look.lip, look.atr)),
        "lip": look.lip,
        "atr": look.atr,
        "densepose": look.densepose,
        "seen": np.where(np.isin(look.truth_lip, _SKIN_LIP) & (look.worn == 0), np.uint8(SKIN), look.worn),
        "points": look.keypoints[:18],
    }
    fields |= {FIELD_OF[category]: picture for category, picture in look.garments.items()}
    for name, value in fields.items():
        buffers[name][row] = torch.from_numpy(np.ascontiguousarray(value))
    buffers["outfit"][row] = outfit_code(categories)
