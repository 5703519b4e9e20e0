"""The Human Toolkit of the released weights: DWPose, DensePose, and SCHP's two parsers, together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastfit_watch.domain.errors import BundleError
from fastfit_watch.engine.parsers.checkpoints import CONVERTED, MEND
from fastfit_watch.engine.parsers.densepose import DensePose
from fastfit_watch.engine.parsers.densepose_detectron2 import Detectron2DensePose
from fastfit_watch.engine.parsers.dwpose import DWPose
from fastfit_watch.engine.parsers.parsing import Parsing
from fastfit_watch.engine.parsers.schp import SCHP, Dataset, parse_with

DATASETS: tuple[Dataset, ...] = ("lip", "atr")


class HumanToolkit:
    """Parses photographs. The pose runs on the CPU, to keep GPU memory for the diffusion, unless told otherwise."""

    def __init__(self, pose: DWPose, densepose: DensePose | Detectron2DensePose, lip: SCHP, atr: SCHP) -> None:
        self._pose, self._densepose, self._lip, self._atr = pose, densepose, lip, atr

    @classmethod
    def load(
        cls, folder: Path, device: str, dtype: torch.dtype, pose_device: str = "cpu", densepose: str = "builtin"
    ) -> HumanToolkit:
        """Load all four networks from the toolkit's files, wherever they lie inside `folder`.

        densepose : `builtin`, or `detectron2`, which then must be installed.

        DensePose and SCHP keep float32 whatever `dtype` is: they are small beside the UNet, and an arg-max at a
        garment's edge should not depend on the precision of the diffusion.

        Raises
        ------
        BundleError : a file is missing or damaged. EngineError : DWPose cannot use `pose_device`, or there is no
            detectron2.
        """
        del dtype
        pose = DWPose(_find(folder, "yolox_l.onnx"), _find(folder, "dw-ll_ucoco_384.onnx"), pose_device)
        labeller = Detectron2DensePose if densepose == "detectron2" else DensePose
        body = labeller.load(_find(folder, "model_final_162be9.pkl"), device)
        lip, atr = (
            SCHP.load(_find(folder, f"*{dataset}*.pth", f"*{dataset}*/**/*.pth"), dataset, device, torch.float32)
            for dataset in DATASETS
        )
        return cls(pose, body, lip, atr)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """DensePose's and both parsers' networks. DWPose is onnxruntime's, which cannot move it."""
        return (self._densepose.network, self._lip.network, self._atr.network)

    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """Parse a uint8 (H, W, 3) RGB photograph of one person."""
        lip, atr = parse_with((self._lip, self._atr), image)
        return Parsing(pose=self._pose.draw(image), densepose=self._densepose.label(image), lip=lip, atr=atr)


def _find(folder: Path, *patterns: str) -> Path:
    """The file below `folder` that fits the first pattern that any file fits; converted copies are no such files."""
    for pattern in patterns:
        found = sorted(path for path in folder.rglob(pattern) if path.is_file() and path.parent.name != CONVERTED)
        if found:
            return found[0]
    raise BundleError(f"The human toolkit in {folder} lacks '{patterns[0]}'.", hint=MEND)
