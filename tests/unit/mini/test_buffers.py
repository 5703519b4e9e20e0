"""Where the trainer of the mini bundle keeps its drawn looks, and what it makes of them."""

from __future__ import annotations

import numpy as np
import torch

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.autoencoder import _flat_labels, _some
from fastfit_watch.mini.buffers import Ring, emphasis
from fastfit_watch.mini.drawing.figures import draw_look
from fastfit_watch.mini.feed import SKIN


def rows(first: int, count: int) -> dict[str, torch.Tensor]:
    numbers = torch.arange(first, first + count)
    return {"number": numbers, "double": 2 * numbers[:, None]}


def test_only_rows_that_were_added_are_sampled_and_their_fields_belong_together() -> None:
    ring = Ring(10, rows(0, 1))
    ring.add(rows(0, 4))
    batch = ring.sample(200)
    assert len(ring) == 4
    assert set(batch["number"].tolist()) == {0, 1, 2, 3}
    assert torch.equal(batch["double"][:, 0], 2 * batch["number"])
    assert set(ring.sample(5, ["double"])) == {"double"}


def test_past_the_capacity_the_oldest_rows_are_replaced() -> None:
    ring = Ring(10, rows(0, 1))
    for first in range(0, 24, 4):
        ring.add(rows(first, 4))
    assert len(ring) == 10
    assert set(ring.sample(500)["number"].tolist()) == set(range(14, 24))


def test_worn_pictures_come_before_what_an_earlier_look_left() -> None:
    pictures, worn = torch.arange(8), torch.tensor([1, 0, 0, 1, 0, 1, 0, 0]) > 0
    assert set(_some(pictures, worn, 3).tolist()) == {0, 3, 5}
    assert {0, 3, 5} < set(_some(pictures, worn, 5).tolist())


def test_a_flat_lays_labels_cover_the_garment_and_nothing_else() -> None:
    look = draw_look(7, {Category.DRESS, Category.SHOE})
    for category, picture in look.garments.items():
        labels = _flat_labels(torch.from_numpy(picture)[None], category)[0].numpy()
        assert set(np.unique(labels)) == {0, category.label + 1}
        paper = picture[0, 0].astype(int)
        assert np.abs(picture[labels == 0].astype(int) - paper).max() <= 10
        assert 0.02 < (labels > 0).mean() < 0.6


def test_garments_and_skin_count_more_than_the_ground_and_accessories_most() -> None:
    seen = torch.tensor([[[0, SKIN, Category.UPPER.label + 1, Category.SHOE.label + 1, Category.BAG.label + 1]]])
    ground, skin, cloth, shoe, bag = emphasis(seen.to(torch.uint8))[0, 0, 0].tolist()
    assert ground < skin == cloth < shoe == bag
