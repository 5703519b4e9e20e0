"""What the evaluation measures in one picture of a held-out look, beside the drawing that says how it should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.drawing.figures import DrawnLook

Picture = NDArray[np.uint8]
Region = NDArray[np.bool_]

_SKIN_LIP = (13, 14, 15, 16, 17)
_ARM_LIP = (14, 15)
_GARMENT_LIP = {Category.UPPER: (5,), Category.LOWER: (9, 12), Category.DRESS: (6,)}
_ARMS = ((2, 3, 4), (5, 6, 7))  # shoulder, elbow and wrist among the body points
_NOSE_TO_ANKLE = 0.86  # in heights of a drawn person
_HAND_REACH, _HAND_RADIUS = 0.035, 0.045  # from the wrist on; in heights of a person
_SAME_COLOUR = 20.0  # distance in Lab up to which a pixel counts as what the truth has there
_SMALLEST_PX = 40
_PALETTE = 6
_ARM_SAMPLES = 60


@dataclass(frozen=True)
class Likeness:
    """One picture beside its truth.

    ssim : of the whole picture; ssim_inside : of what lies inside the mask. background_error : mean difference of
    colour, of 255, where the truth shows background inside the mask; edge_step : mean step of colour across the mask's
    edge between two pixels of background, and edge_step_truth the drawing's own; all three NaN where there are none.
    skin, hands : whether each is there; empty where the truth shows none inside the mask. lengths_by_colour,
    lengths_by_parser, lengths_of_truth : differences of hems and sleeves from the drawing's, in heights of the person,
    by measure; the last by colour of the truth itself, which says how good that measure is.
    """

    ssim: float
    ssim_inside: float
    background_error: float
    edge_step: float
    edge_step_truth: float
    skin: tuple[bool, ...]
    hands: tuple[bool, ...]
    lengths_by_colour: tuple[float, ...]
    lengths_by_parser: tuple[float, ...]
    lengths_of_truth: tuple[float, ...]


def compare(look: DrawnLook, picture: Picture, mask: Picture, parse: Callable[[Picture], Picture]) -> Likeness:
    """Measure one picture, uint8 (H, W, 3). mask: uint8 (H, W). parse: gives the LIP labels of a picture."""
    inside = mask >= 128
    ssim, local = structural_similarity(picture, look.truth, channel_axis=2, full=True)
    background = (look.truth_lip == 0) & (look.worn == 0)
    error = np.abs(picture.astype(int) - look.truth).mean(2)
    height = body_height(look)
    same = np.linalg.norm(_lab(picture) - _lab(look.truth), axis=2) < _SAME_COLOUR
    limits = {slot: drawn_lengths(look, look.worn == slot.label + 1) for slot in look.garments if slot in _GARMENT_LIP}
    labels = parse(picture)
    return Likeness(
        float(ssim),
        float(local.mean(2)[inside].mean()),
        _mean(error[inside & background]),
        edge_step(picture, inside, background),
        edge_step(look.truth, inside, background),
        _present(same, np.isin(look.truth_lip, _SKIN_LIP) & (look.worn == 0) & inside),
        tuple(found for hand in hands(look, height) for found in _present(same, hand & inside)),
        _differences(look, limits, height, lambda slot: by_colour(look, picture, slot)),
        _differences(look, limits, height, lambda slot: np.isin(labels, _GARMENT_LIP[slot])),
        _differences(look, limits, height, lambda slot: by_colour(look, look.truth, slot)),
    )


def body_height(look: DrawnLook) -> float:
    """Height of the drawn person in pixels."""
    points = look.keypoints
    return float((points[[10, 13], 1].mean() - points[0, 1]) / _NOSE_TO_ANKLE)


def edge_step(picture: Picture, inside: Region, background: Region) -> float:
    """Mean difference of colour between neighbours on the two sides of the mask's edge, where both are background."""
    steps = []
    for axis in (0, 1):
        first, second = (
            np.take(background, range(start, background.shape[axis] - 1 + start), axis) for start in (0, 1)
        )
        crosses = np.diff(inside.astype(np.int8), axis=axis) != 0
        difference = np.abs(np.diff(picture.astype(int), axis=axis)).mean(2)
        steps.append(difference[crosses & first & second])
    return _mean(np.concatenate(steps))


def hands(look: DrawnLook, height: float) -> list[Region]:
    """Where the truth shows each hand."""
    rows, columns = np.mgrid[: look.truth_lip.shape[0], : look.truth_lip.shape[1]]
    skin = np.isin(look.truth_lip, _ARM_LIP) & (look.worn == 0)
    found = []
    for _, elbow, wrist in _ARMS:
        along = look.keypoints[wrist] - look.keypoints[elbow]
        x, y = look.keypoints[wrist] + _HAND_REACH * height * along / np.linalg.norm(along)
        found.append(skin & (np.hypot(columns - x, rows - y) < _HAND_RADIUS * height))
    return found


def drawn_lengths(look: DrawnLook, region: Region) -> tuple[float, ...]:
    """How far a garment's region reaches: the row of its hem, then the share of each arm that it covers (if upper)."""
    counts = cv2.blur(_largest(region).sum(1).astype(np.float32)[:, None], (1, 3))[:, 0]
    long = np.flatnonzero(counts >= 0.3 * counts.max()) if counts.max() > 0 else np.zeros(1, int)
    return (float(long[-1]), *(_covered(look, region, arm) for arm in _ARMS))


def _largest(region: Region) -> Region:
    """The largest connected part: a shadow or a shoe may have a garment's colour."""
    _, labels, sizes, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    return np.asarray(labels == 1 + int(np.argmax(sizes[1:, cv2.CC_STAT_AREA]))) if len(sizes) > 1 else region


def by_colour(look: DrawnLook, picture: Picture, slot: Category) -> Region:
    """Where a picture has the colours of a garment rather than those of anything else that the truth shows."""
    lab, truth = _lab(picture), _lab(look.truth)
    own = look.worn == slot.label + 1
    kinds = [look.worn == other.label + 1 for other in Category if other is not slot]
    kinds += [(look.worn == 0) & np.isin(look.truth_lip, _SKIN_LIP), (look.worn == 0) & (look.truth_lip > 0)]
    # The ground changes slowly, so that a pixel is compared with the ground of its own row.
    ground = (look.truth_lip == 0) & (look.worn == 0)
    rows = np.stack(
        [np.median(line[flags], 0) if flags.any() else [999.0] * 3 for line, flags in zip(truth, ground, strict=True)]
    )
    nearest = np.linalg.norm(lab - rows[:, None], axis=2)
    for kind in kinds:
        if kind.sum() >= _SMALLEST_PX:
            nearest = np.minimum(nearest, _distance(lab, _palette(truth[kind])))
    return np.asarray(_distance(lab, _palette(truth[own])) < nearest) if own.sum() >= _SMALLEST_PX else own


def _differences(
    look: DrawnLook,
    limits: Mapping[Category, tuple[float, ...]],
    height: float,
    region_of: Callable[[Category], Region],
) -> tuple[float, ...]:
    differences: list[float] = []
    for slot, (hem, *sleeves) in limits.items():
        if (look.worn == slot.label + 1).sum() < _SMALLEST_PX:
            continue
        seen_hem, *seen_sleeves = drawn_lengths(look, region_of(slot))
        differences.append(abs(seen_hem - hem) / height)
        if slot is not Category.LOWER:
            arms = [_arm(look, arm) for arm in _ARMS]
            differences += [
                abs(seen - drawn) * float(np.linalg.norm(np.diff(arm, axis=0), axis=1).sum()) / height
                for seen, drawn, arm in zip(seen_sleeves, sleeves, arms, strict=True)
            ]
    return tuple(differences)


def _arm(look: DrawnLook, joints: tuple[int, int, int]) -> NDArray[np.float32]:
    return look.keypoints[list(joints)]


def _covered(look: DrawnLook, region: Region, joints: tuple[int, int, int]) -> float:
    """Share of an arm, from the shoulder on, up to the last place where the garment is most of what is around."""
    shoulder, elbow, wrist = _arm(look, joints)
    shares = np.linspace(0, 2, _ARM_SAMPLES)[:, None]
    places = np.where(shares < 1, shoulder + shares * (elbow - shoulder), elbow + (shares - 1) * (wrist - elbow))
    around = cv2.blur(region.astype(np.float32), (5, 5))
    rows, columns = (np.clip(places[:, axis].round().astype(int), 0, region.shape[1 - axis] - 1) for axis in (1, 0))
    on = np.flatnonzero(around[rows, columns] > 0.5)
    return float(on[-1] + 1) / _ARM_SAMPLES if len(on) else 0.0


def _present(same: Region, region: Region) -> tuple[bool, ...]:
    return (bool(same[region].mean() >= 0.5),) if region.sum() >= _SMALLEST_PX else ()


def _palette(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """A few colours that stand for many, (n, 3)."""
    cv2.setRNGSeed(0)
    count = min(_PALETTE, len(colours))
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 0.5)
    return np.asarray(cv2.kmeans(colours.astype(np.float32), count, None, criteria, 1, cv2.KMEANS_PP_CENTERS)[2], float)


def _distance(lab: NDArray[np.float64], palette: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.min([np.linalg.norm(lab - colour, axis=2) for colour in palette], axis=0))


def _lab(picture: Picture) -> NDArray[np.float64]:
    return np.asarray(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
