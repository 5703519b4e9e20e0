"""The Human Toolkit of the released weights: DWPose, DensePose, and SCHP's two parsers, together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastfit_watch.engine.parsing import Parsing
from fastfit_watch.engine.toolkit.convert import CONVERTED, MEND
from fastfit_watch.engine.toolkit.densepose import DensePose
from fastfit_watch.engine.toolkit.dwpose import DWPose
from fastfit_watch.engine.toolkit.schp import SCHP, Dataset
from fastfit_watch.errors import BundleError

DATASETS: tuple[Dataset, ...] = ("lip", "atr")


class HumanToolkit:
    """Parses photographs. The pose runs on the CPU, to keep GPU memory for the diffusion, unless told otherwise."""

    def __init__(self, pose: DWPose, densepose: DensePose, lip: SCHP, atr: SCHP) -> None:
        self._pose, self._densepose, self._lip, self._atr = pose, densepose, lip, atr

    @classmethod
    def load(cls, folder: Path, device: str, dtype: torch.dtype, pose_device: str = "cpu") -> HumanToolkit:
        """Load all four networks from the toolkit's files, wherever they lie inside `folder`.

        DensePose and SCHP keep float32 whatever `dtype` is: they are small beside the UNet, and an arg-max at a
        garment's edge should not depend on the precision of the diffusion.

        Raises BundleError naming a file that is missing, and EngineError if DWPose cannot use `pose_device`.
        """
        del dtype
        pose = DWPose(_find(folder, "yolox_l.onnx"), _find(folder, "dw-ll_ucoco_384.onnx"), pose_device)
        densepose = DensePose.load(_find(folder, "model_final_162be9.pkl"), device)
        lip, atr = (
            SCHP.load(_find(folder, f"*{dataset}*.pth", f"*{dataset}*/**/*.pth"), dataset, device, torch.float32)
            for dataset in DATASETS
        )
        return cls(pose, densepose, lip, atr)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """DensePose's and both parsers' networks. DWPose is onnxruntime's, which cannot move it."""
        return (self._densepose.network, self._lip.network, self._atr.network)

    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """Parse a uint8 (H, W, 3) RGB photograph of one person."""
        return Parsing(
            pose=self._pose.draw(image),
            densepose=self._densepose.label(image),
            lip=self._lip.parse(image),
            atr=self._atr.parse(image),
        )


def _find(folder: Path, *patterns: str) -> Path:
    """The file below `folder` that fits the first pattern that any file fits; converted copies are no such files."""
    for pattern in patterns:
        found = sorted(path for path in folder.rglob(pattern) if path.is_file() and path.parent.name != CONVERTED)
        if found:
            return found[0]
    raise BundleError(f"The human toolkit in {folder} lacks '{patterns[0]}'.", hint=MEND)
