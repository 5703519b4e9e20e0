"""The parser's stage of training: labels and body points of drawn people."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastfit_watch.engine.parsers.mini import HEATMAP_STRIDE, LABEL_COUNTS
from fastfit_watch.mini.buffers import Pictures, to_unit
from fastfit_watch.mini.feed import LookFeed
from fastfit_watch.mini.networks import PARSER_CONFIG
from fastfit_watch.mini.recorded import Variant
from fastfit_watch.mini.stage import Piece, Stage


def train_parser(piece: Piece, feed: LookFeed) -> None:
    """Labels by cross-entropy, points by heat maps; pictures are shrunk, shifted and tinted at random."""
    fields = ["person", *LABEL_COUNTS, "points"]
    stage, looks = Stage("parser", piece), Pictures(feed, piece.device, fields, capacity=8_000)

    def loss_of(network: nn.Module, _: Variant) -> Tensor:
        batch = looks.sample(stage.batch, fields)
        picture, labels, heat = _augment(batch)
        logits, points = network(picture.to(stage.dtype))
        parts = logits.float().split(list(LABEL_COUNTS.values()), dim=1)
        loss = sum(functional.cross_entropy(part, label) for part, label in zip(parts, labels, strict=True))
        return loss + 20 * functional.binary_cross_entropy_with_logits(points.float(), heat)

    stage.run(loss_of, lambda: None, looks.refill)
    stage.save()


def _augment(batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
    """The parser's size, random scale 0.6 to 1.1, shift, brightness and noise; heat maps at the moved points."""
    picture = to_unit(batch["person"])
    count = len(picture)
    height = PARSER_CONFIG["height"]
    width = height * picture.shape[3] // picture.shape[2]
    scale = torch.empty(count, device=picture.device).uniform_(0.6, 1.1)
    shift = torch.empty(count, 2, device=picture.device).uniform_(-1, 1) * (1 - scale).abs()[:, None]
    matrix = torch.zeros(count, 2, 3, device=picture.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale
    matrix[:, :, 2] = -shift / scale[:, None]
    grid = functional.affine_grid(matrix, [count, 3, height, width], align_corners=False)
    moved = functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)
    moved = moved * torch.empty(count, 1, 1, 1, device=moved.device).uniform_(0.85, 1.15) + 0.03 * torch.randn_like(
        moved
    )
    labels = [
        functional.grid_sample(batch[name][:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()
        for name in LABEL_COUNTS
    ]
    size = torch.cat([torch.full((1,), float(side), device=picture.device) for side in (width, height)])
    seen = batch["points"][..., 0] >= 0
    points = (
        ((batch["points"] * (height / picture.shape[2]) / size * 2 - 1) * scale[:, None, None] + shift[:, None] + 1)
        / 2
        * size
    )
    columns = (torch.arange(width // HEATMAP_STRIDE, device=picture.device) + 0.5) * HEATMAP_STRIDE
    rows = (torch.arange(height // HEATMAP_STRIDE, device=picture.device) + 0.5) * HEATMAP_STRIDE
    spread = 2 * (1.2 * HEATMAP_STRIDE) ** 2
    across = torch.exp(-((columns - points[..., :1]) ** 2) / spread)
    down = torch.exp(-((rows - points[..., 1:]) ** 2) / spread)
    return moved, labels, down[..., :, None] * across[..., None, :] * seen[..., None, None]
