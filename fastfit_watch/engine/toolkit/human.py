"""The Human Toolkit of the released weights: DWPose, DensePose, and SCHP's two parsers, together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fastfit_watch.engine.parsing import Parsing
from fastfit_watch.engine.toolkit.densepose import DensePose
from fastfit_watch.engine.toolkit.dwpose import DWPose
from fastfit_watch.engine.toolkit.schp import SCHP
from fastfit_watch.errors import BundleError


class HumanToolkit:
    """Parses photographs. The pose runs on the CPU, to keep GPU memory for the diffusion; the rest on the device."""

    def __init__(self, pose: DWPose, densepose: DensePose, lip: SCHP, atr: SCHP) -> None:
        self._pose, self._densepose, self._lip, self._atr = pose, densepose, lip, atr

    @classmethod
    def load(cls, folder: Path, device: str, dtype: torch.dtype) -> HumanToolkit:
        """Load all four networks from the toolkit's files, wherever they lie inside `folder`.

        DensePose and SCHP keep float32 whatever `dtype` is: they are small beside the UNet, and an arg-max at a
        garment's edge should not depend on the precision of the diffusion.

        Raises BundleError naming a file that is missing.
        """
        del dtype
        pose = DWPose(_find(folder, "yolox_l.onnx"), _find(folder, "dw-ll_ucoco_384.onnx"))
        densepose = DensePose.load(_find(folder, "model_final_162be9.pkl"), device)
        lip, atr = (
            SCHP.load(_find(folder, f"*{dataset}*.pth"), dataset, device, torch.float32) for dataset in ("lip", "atr")
        )
        return cls(pose, densepose, lip, atr)

    def parse(self, image: NDArray[np.uint8]) -> Parsing:
        """Parse a uint8 (H, W, 3) RGB photograph of one person."""
        return Parsing(
            pose=self._pose.draw(image),
            densepose=self._densepose.label(image),
            lip=self._lip.parse(image),
            atr=self._atr.parse(image),
        )


def _find(folder: Path, pattern: str) -> Path:
    """The one file of that name below `folder`."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not found:
        raise BundleError(
            f"The human toolkit in {folder} lacks '{pattern}'.", hint="Fetch the bundle again, or copy the file there."
        )
    return found[0]
