"""The same body-part labels from detectron2 itself, for those who have it installed.

Optional: nothing else needs it. Both ways share one reading of the weights and one way of painting, so only the
network in between differs. detectron2's own loader is left out, as it unpickles files without restriction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastfit_watch.engine.toolkit.densepose import restore_size, shrink_picture
from fastfit_watch.engine.toolkit.densepose_checkpoint import load_weights
from fastfit_watch.engine.toolkit.densepose_detector import (
    DetectorSettings,
    paint_body,
    resize_picture,
    working_size,
)
from fastfit_watch.errors import EngineError


class Detectron2DensePose:
    """Labels body parts with detectron2's DensePose; same interface as `DensePose`."""

    def __init__(self, model: Any, settings: DetectorSettings) -> None:
        self.model = model
        self.settings = settings

    @classmethod
    def load(cls, path: Path, config_path: Path, device: str) -> Detectron2DensePose:
        """Build the network of `config_path` (densepose_rcnn_R_50_FPN_s1x.yaml, its base file beside it), float32.

        Raises
        ------
        EngineError
            detectron2 or its DensePose project is not installed.
        BundleError
            The weights are missing, damaged, unsafe, or of another network.
        """
        try:
            from densepose import add_densepose_config
            from detectron2.config import get_cfg
            from detectron2.modeling import build_model
        except ImportError as error:
            raise EngineError(
                f"detectron2 with its DensePose project is not installed ({error}).",
                hint="Install both from https://github.com/facebookresearch/detectron2 (the second is the folder "
                "projects/DensePose), or use the built-in DensePose, which needs neither.",
            ) from error
        settings = DetectorSettings()
        config = get_cfg()
        add_densepose_config(config)
        config.merge_from_file(str(config_path))
        config.MODEL.DEVICE = device
        config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = settings.score_threshold
        model = build_model(config).eval()
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        model.load_state_dict(load_weights(path, shapes))
        return cls(model, settings)

    @torch.inference_mode()
    def label(self, image: np.ndarray) -> np.ndarray:
        """Body parts, uint8 (H, W), 0..24, of the surest person in an RGB picture, uint8 (H, W, 3)."""
        picture = shrink_picture(image)
        size = (picture.shape[0], picture.shape[1])
        seen = torch.from_numpy(resize_picture(picture, working_size(size, self.settings))).permute(2, 0, 1)
        people = self.model([{"image": seen, "height": size[0], "width": size[1]}])[0]["instances"]
        labels = np.zeros(size, dtype=np.uint8)
        if len(people):
            bodies = people.pred_densepose
            labels = paint_body(bodies.coarse_segm[0], bodies.fine_segm[0], people.pred_boxes.tensor[0], size)
        return restore_size(labels, (image.shape[0], image.shape[1]))
