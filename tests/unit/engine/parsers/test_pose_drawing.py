"""The skeleton drawing, pixel for pixel, against measured vectors: full, missing points, two people, nobody."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastfit_watch.engine.parsers.pose_drawing import detect_size, draw_pose, resize_back

CASES = range(4)


@cache
def golden() -> dict[str, NDArray[np.generic]]:
    with np.load(Path(__file__).parents[3] / "golden" / "dwpose_draw.npz") as stored:
        return dict(stored)


def person(index: int) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]]:
    """Key points, scores and the picture's size."""
    height, width = golden()[f"c{index}_size"].tolist()
    points, scores = golden()[f"c{index}_keypoints134"], golden()[f"c{index}_scores134"]
    return points.astype(np.float64), scores.astype(np.float64), (height, width)


@pytest.mark.parametrize("index", CASES)
def test_the_drawing_is_exact(index: int) -> None:
    points, scores, size = person(index)
    drawing = draw_pose(points, scores, detect_size(size))
    assert np.array_equal(drawing, golden()[f"c{index}_pose_small"])
    assert np.array_equal(resize_back(drawing, size), golden()[f"c{index}_pose_out"])


@pytest.mark.parametrize("index", CASES)
def test_missing_faces_and_hands_leave_the_measured_body(index: int) -> None:
    points, scores, size = person(index)
    points[:, 24:] = -1
    assert np.array_equal(draw_pose(points, scores, detect_size(size)), golden()[f"c{index}_pose_body_only"])


def test_body_points_at_the_limit_are_not_drawn() -> None:
    points, _, size = person(0)
    points[:, 24:] = -1
    assert not draw_pose(points, np.full((1, 134), 0.3), detect_size(size)).any()
    assert draw_pose(points, np.full((1, 134), 0.31), detect_size(size)).any()


@pytest.mark.parametrize(
    ("corner", "drawn"), [((0.9, 40), False), ((40, 0.9), False), ((1, 40), True), ((40, 1), True)]
)
def test_face_and_hand_points_on_the_first_row_or_column_are_not_drawn(
    corner: tuple[float, float], drawn: bool
) -> None:
    for point in (24, 100):
        points = np.full((1, 134, 2), -1.0)
        points[0, point] = corner
        assert draw_pose(points, np.zeros((1, 134)), (64, 128)).any() == drawn


def test_nobody_is_black() -> None:
    drawing = draw_pose(np.zeros((0, 134, 2)), np.zeros((0, 134)), (64, 128))
    assert drawing.shape == (64, 128, 3)
    assert drawing.dtype == np.uint8
    assert not drawing.any()


@pytest.mark.parametrize(
    ("size", "detected"),
    [
        ((1024, 768), (704, 512)),  # 682.7 is nearer to 704 than to 640
        ((256, 192), (704, 512)),
        ((300, 400), (512, 704)),
        ((512, 512), (512, 512)),
        ((544, 512), (512, 512)),  # 8.5 steps of 64 round to the even 8
    ],
)
def test_detect_size(size: tuple[int, int], detected: tuple[int, int]) -> None:
    assert detect_size(size) == detected
