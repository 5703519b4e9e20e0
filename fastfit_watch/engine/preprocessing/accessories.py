"""Where shoes and bags go: our own regions, made from the labels of a person.

The published masks know garments only. All regions are uint8 (H, W), 0 or 1; lengths scale with the picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from fastfit_watch.engine.preprocessing.labels import Labels, Region, select_atr, select_clothes, select_parts
from fastfit_watch.engine.preprocessing.regions import dilate_by, drop_specks, fill_hulls, keep_largest

_SHOE_MARGIN = 0.015  # of the height
_BAG_MARGIN = 0.03  # of the height: the new bag may be larger than the old one
_CARRIED_BAG = 0.002  # of the picture: less is too small to take another's place
_BESIDE_HIPS = 0.35  # of the torso's width, on each side
_STRAP = 0.12  # of the torso's width


def shoe_region(densepose: Labels, lip: Labels, atr: Labels) -> Region:
    """Return where shoes go: shoes and socks of either map and DensePose's feet, one convex hull a foot, with a margin.

    Empty where no foot is in the picture. Bare shins are not included: a shoe becomes a boot only where it was one.
    """
    feet = select_clothes(lip, atr, {"left-shoe", "right-shoe", "socks"}) | select_parts(densepose, {"feet"})
    return dilate_by(fill_hulls(drop_specks(feet)), round(_SHOE_MARGIN * feet.shape[0]))


def bag_region(densepose: Labels, atr: Labels) -> Region:
    """Return where a bag goes.

    A carried bag (ATR) gives its convex hull with a margin. A person without one is given room for one: the lower half
    of the torso and the upper half of the thighs (DensePose), as one convex piece, widened to both sides, and a strap's
    width from each shoulder to the other hip, as nobody knows on which side the bag will hang. Empty where neither a
    bag nor a torso is in the picture.
    """
    carried = drop_specks(select_atr(atr, {"bag"}))
    if np.count_nonzero(carried) >= _CARRIED_BAG * carried.size:
        return dilate_by(fill_hulls(carried), round(_BAG_MARGIN * carried.shape[0]))
    return _room_for_bag(densepose)


def _room_for_bag(densepose: Labels) -> Region:
    torso = keep_largest(select_parts(densepose, {"torso"}))
    room = np.zeros_like(torso)
    if not torso.any():
        return room
    left, top, width, height = cv2.boundingRect(torso)
    waist = top + height // 2
    room[waist:] = torso[waist:]
    thighs = drop_specks(select_parts(densepose, {"thighs"}))
    if thighs.any():
        _, thighs_top, _, thighs_height = cv2.boundingRect(thighs)
        middle = thighs_top + thighs_height // 2
        room[:middle] |= thighs[:middle]
    cv2.fillPoly(room, [cv2.convexHull(cv2.findNonZero(room))], 1)
    reach = round(_BESIDE_HIPS * width)
    room = np.asarray(cv2.dilate(room, np.ones((1, 2 * reach + 1), np.uint8)), np.uint8)
    right, bottom, strap = left + width - 1, top + height - 1, max(1, round(_STRAP * width))
    cv2.line(room, (left, top), (right, bottom), 1, strap)
    cv2.line(room, (right, top), (left, bottom), 1, strap)
    return room
