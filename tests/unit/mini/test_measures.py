"""What the evaluation measures: the truth is perfect by every measure, and each fault shows in its own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastfit_watch.domain.look import Category
from fastfit_watch.engine.preprocessing.mask import full_mask
from fastfit_watch.mini.drawing.figures import DrawnLook, draw_look
from fastfit_watch.mini.measures import Likeness, Picture, body_height, compare, hands

SIZES = (384, 288), (384, 288), (192, 144)
OUTFIT = {Category.UPPER, Category.LOWER, Category.SHOE, Category.BAG}


@pytest.fixture(scope="module")
def look() -> DrawnLook:
    return draw_look(40, OUTFIT, *SIZES)


def measure(look: DrawnLook, picture: Picture, labels: Picture | None = None) -> Likeness:
    mask = full_mask(look.densepose, look.lip, look.atr)
    return compare(look, picture, mask, lambda _: look.truth_lip if labels is None else labels)


def test_the_truth_is_perfect(look: DrawnLook) -> None:
    truth = measure(look, look.truth)
    assert truth.ssim == truth.ssim_inside == 1 and truth.background_error == 0
    assert truth.edge_step == truth.edge_step_truth
    assert all(truth.skin) and len(truth.hands) == 2 and all(truth.hands)
    assert len(truth.lengths_by_parser) == 4 and max(truth.lengths_by_parser) < 0.03


def test_lengths_by_colour_are_right_in_nearly_all_truths() -> None:
    looks = [draw_look(seed, OUTFIT, *SIZES) for seed in range(12)]
    lengths = [length for look in looks for length in measure(look, look.truth).lengths_of_truth]
    assert np.mean(np.array(lengths) <= 0.05) > 0.85


def test_a_grey_hull_shows_in_the_background_and_at_the_edge(look: DrawnLook) -> None:
    mask = full_mask(look.densepose, look.lip, look.atr) > 0
    hull = look.truth.copy()
    ground = mask & (look.truth_lip == 0) & (look.worn == 0)
    hull[ground] = np.clip(hull[ground].astype(int) - 12, 0, 255)
    seen = measure(look, hull)
    assert seen.background_error == pytest.approx(12)
    assert seen.edge_step > seen.edge_step_truth + 8


def test_hands_that_are_missing_are_counted(look: DrawnLook) -> None:
    handless = look.truth.copy()
    for hand in hands(look, body_height(look)):
        handless[hand] = (200, 220, 200)
    assert not any(measure(look, handless).hands)


def test_a_skirt_too_long_shows_by_colour_and_by_parser() -> None:
    look = draw_look(41, {Category.DRESS}, *SIZES)
    rows, columns = np.nonzero(look.worn == Category.DRESS.label + 1)
    hem, middle = int(rows.max()), int(np.median(columns))
    longer, labels = look.truth.copy(), look.truth_lip.copy()
    further = slice(hem - 4, hem + round(0.1 * body_height(look))), slice(middle - 40, middle + 40)
    longer[further] = look.truth[hem - 20, middle]
    labels[further] = 6
    seen, right = measure(look, longer, labels), measure(look, look.truth)
    assert seen.lengths_by_parser[0] > 0.05 > right.lengths_by_parser[0]
    assert seen.lengths_by_colour[0] > 0.05


def test_a_blurred_picture_is_less_like_the_truth_inside_the_mask(look: DrawnLook) -> None:
    blurred = cv2.GaussianBlur(look.truth, (9, 9), 3)
    seen = measure(look, blurred)
    assert seen.ssim_inside < seen.ssim < 1
