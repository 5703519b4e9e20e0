"""The feed of drawn looks: how much it hands over at once, and that what it hands over belongs together."""

from __future__ import annotations

import torch

from fastfit_watch.mini.feed import LookFeed, outfit_categories


def test_no_more_is_handed_over_at_once_than_was_asked_for_however_much_is_ready() -> None:
    with LookFeed(processes=1, first_seed=5, chunk=2) as feed:
        first = list(feed.take_ready("cpu", wait_s=120, most=1))
        more = list(feed.take_ready("cpu", wait_s=120, most=2))
    assert len(first) == 1 and 1 <= len(more) <= 2
    for chunk in (*first, *more):
        assert all(len(rows) == 2 for rows in chunk.values())


def test_looks_are_drawn_from_different_seeds_with_the_outfit_they_name() -> None:
    with LookFeed(processes=2, first_seed=5, chunk=2) as feed:
        chunks = [next(iter(feed.take_ready("cpu", wait_s=120, most=1))) for _ in range(2)]
    people = torch.cat([chunk["person"] for chunk in chunks])
    assert len({picture.numpy().tobytes() for picture in people}) == 4
    for code in torch.cat([chunk["outfit"] for chunk in chunks]).tolist():
        assert outfit_categories(code)
