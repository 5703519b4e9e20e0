"""The content filter: a transformers image classifier that looks at every result before anybody can see it.

The licence of the released weights asks for one of whoever distributes results. It sees the finished picture only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.engine.measurement import memory_errors, simulate_shortage

_FOLDER = "content-filter"


class ContentFilter:
    """Judges pictures. Holds weights only."""

    def __init__(
        self, network: Any, processor: Any, labels: Sequence[str], threshold: float, device: str = "cpu"
    ) -> None:
        """Take a loaded transformers model for image classification with its image processor.

        Parameters
        ----------
        labels : those of the model's labels that withhold a picture; upper and lower case are the same.
        threshold : probability, 0..1, from which on they do.

        Raises
        ------
        BundleError : the model has no such label.
        """
        known = {str(name).lower(): int(index) for index, name in network.config.id2label.items()}
        unknown = [label for label in labels if label.lower() not in known]
        if unknown or not labels:
            raise BundleError(
                f"The content filter has no label {', '.join(map(repr, unknown)) or 'to withhold'}.",
                hint=f"Its labels are: {', '.join(known)}. See content_filter.labels in the configuration.",
            )
        self._network = network.to(device).eval().requires_grad_(False)
        self._processor, self._device = processor, device
        self._wanted = {label: known[label.lower()] for label in labels}
        self._threshold = threshold
        self._labels_exclude = network.config.problem_type != "multi_label_classification"

    @classmethod
    def load(cls, model: str, labels: Sequence[str], threshold: float, device: str, models: Path) -> ContentFilter:
        """Load a classifier: a directory, or a name on the hub, which is kept in the folder `models` from then on.

        The hub is asked only for what is not there, so the revision of the first start stays, with no network, too.
        Only safetensors are read, code that comes with a model is never run, and pictures are prepared by Pillow.

        Raises
        ------
        BundleError : it cannot be had, is no image classifier, or lacks a label.
        """
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        place = str(Path(model).absolute()) if Path(model).is_dir() else model
        safe = {"cache_dir": str(models / _FOLDER), "trust_remote_code": False}

        def read(*, here_only: bool) -> tuple[Any, Any]:
            processor = AutoImageProcessor.from_pretrained(place, backend="pil", local_files_only=here_only, **safe)
            network = AutoModelForImageClassification.from_pretrained(
                place, use_safetensors=True, local_files_only=here_only, **safe
            )
            return network, processor

        try:
            try:
                network, processor = read(here_only=True)
            except OSError:
                network, processor = read(here_only=False)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise BundleError(
                f"The content filter {model} cannot be loaded: {str(error).strip().splitlines()[0]}",
                hint="Check content_filter.model: a directory or a hub name of an image classifier with safetensors.",
            ) from error
        return cls(network, processor, labels, threshold, device)

    @torch.inference_mode()
    def judge(self, image: Image.Image, rung: Rung = Rung.FULL) -> str | None:
        """Why this RGB picture must be withheld; None if it need not be.

        Labels that exclude each other count together, others for themselves. A picture that gets no number at all is
        withheld, too. `rung` only names the shortage in a test.

        Raises
        ------
        OutOfMemory : the device is full.
        """
        with memory_errors(self._device, "filter"):
            simulate_shortage(rung, "filter")
            inputs = self._processor(images=image.convert("RGB"), return_tensors="pt").to(self._device)
            logits = self._network(**inputs).logits[0].float()
        shares = (logits.softmax(0) if self._labels_exclude else logits.sigmoid()).cpu()
        found = {label: float(shares[index]) for label, index in self._wanted.items()}
        score = sum(found.values()) if self._labels_exclude else max(found.values())
        if score < self._threshold:
            return None
        most = max(found, key=lambda label: -math.inf if math.isnan(found[label]) else found[label])
        return f"the content filter sees {most} ({score:.2f}, the limit is {self._threshold:.2f})"


def fetched_revision(model: str, models: Path) -> str:
    """The commit on the hub that a classifier was fetched from; empty if it lies in a directory of its own.

    Where huggingface_hub's cache keeps it: "Understand caching" in its documentation.
    """
    try:
        name = f"models--{model.replace('/', '--')}"
        return (models / _FOLDER / name / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
