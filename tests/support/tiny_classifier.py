"""A real transformers image classifier, tiny, whose answer is known: its last layer has no weights, only a bias.

As a program: FOLDER LOGIT LOGIT LOGIT."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

LABELS = ("normal", "nsfw", "gore")


def write_classifier(folder: Path, logits: tuple[float, ...], *, multi_label: bool = False) -> Path:
    """Write one that answers every picture with these logits, one for each of `LABELS`."""
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=32,
        patch_size=16,
        id2label=dict(enumerate(LABELS)),
        problem_type="multi_label_classification" if multi_label else "single_label_classification",
    )
    network = ViTForImageClassification(config)
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor(logits))
    network.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    write_classifier(Path(sys.argv[1]), tuple(map(float, sys.argv[2:])))
