"""Label numbers of the three human parsers (FastFit inference specification, section 4.1) and how to select by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
Region = NDArray[np.uint8]  # (H, W), 0 or 1

ATR: Mapping[str, int] = MappingProxyType(
    {
        "background": 0,
        "hat": 1,
        "hair": 2,
        "sunglasses": 3,
        "upper-clothes": 4,
        "skirt": 5,
        "pants": 6,
        "dress": 7,
        "belt": 8,
        "left-shoe": 9,
        "right-shoe": 10,
        "face": 11,
        "left-leg": 12,
        "right-leg": 13,
        "left-arm": 14,
        "right-arm": 15,
        "bag": 16,
        "scarf": 17,
    }
)
LIP: Mapping[str, int] = MappingProxyType(
    {
        "background": 0,
        "hat": 1,
        "hair": 2,
        "glove": 3,
        "sunglasses": 4,
        "upper-clothes": 5,
        "dress": 6,
        "coat": 7,
        "socks": 8,
        "pants": 9,
        "jumpsuits": 10,
        "scarf": 11,
        "skirt": 12,
        "face": 13,
        "left-arm": 14,
        "right-arm": 15,
        "left-leg": 16,
        "right-leg": 17,
        "left-shoe": 18,
        "right-shoe": 19,
    }
)
DENSEPOSE: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        "torso": frozenset({1, 2}),
        "hands": frozenset({3, 4}),
        "feet": frozenset({5, 6}),
        "thighs": frozenset({7, 8, 9, 10}),
        "legs": frozenset({11, 12, 13, 14}),
        "big-arms": frozenset({15, 16, 17, 18}),
        "forearms": frozenset({19, 20, 21, 22}),
        "face": frozenset({23, 24}),
    }
)


def select_parts(densepose: Labels, names: Iterable[str]) -> Region:
    """Return 1 where `densepose` (H, W) shows one of the named body parts, else 0."""
    return _select(densepose, {value for name in names for value in DENSEPOSE[name]})


def select_atr(atr: Labels, names: Iterable[str]) -> Region:
    """Return 1 where `atr` (H, W) carries one of the names, else 0. Names that ATR does not know are skipped."""
    return _select(atr, {ATR[name] for name in names if name in ATR})


def select_lip(lip: Labels, names: Iterable[str]) -> Region:
    """Return 1 where `lip` (H, W) carries one of the names, else 0. Names that LIP does not know are skipped."""
    return _select(lip, {LIP[name] for name in names if name in LIP})


def select_clothes(lip: Labels, atr: Labels, names: Iterable[str]) -> Region:
    """Return 1 where either map carries one of the names, else 0."""
    wanted = frozenset(names)
    return select_lip(lip, wanted) | select_atr(atr, wanted)


def _select(labels: Labels, values: Iterable[int]) -> Region:
    table = np.zeros(256, np.uint8)
    table[list(values)] = 1
    return np.asarray(cv2.LUT(labels, table), np.uint8)
