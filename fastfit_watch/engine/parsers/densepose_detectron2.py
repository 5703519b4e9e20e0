"""The same body-part labels from detectron2 itself, for those who have it installed.

Optional: `engine.densepose: detectron2` asks for it, nothing else needs it. Both ways share one reading of the weights
and one way of painting, so only the network in between differs. detectron2's own loader is left out, as it unpickles
files without restriction, and so is its YAML, which its installed package does not bring.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastfit_watch.domain.errors import EngineError
from fastfit_watch.engine.parsers.densepose import restore_size, shrink_picture
from fastfit_watch.engine.parsers.densepose_checkpoint import IGNORED_NAMES, load_weights
from fastfit_watch.engine.parsers.densepose_detector import (
    ANCHOR_SIZES_PX,
    PROPOSALS,
    PROPOSALS_PER_LEVEL,
    DetectorSettings,
    paint_body,
    resize_picture,
    working_size,
)

_PYRAMID = ["p2", "p3", "p4", "p5"]
_STAGES = ["res2", "res3", "res4", "res5"]


class Detectron2DensePose:
    """Labels body parts with detectron2's DensePose; same interface as `DensePose`."""

    def __init__(self, network: nn.Module, settings: DetectorSettings) -> None:
        self.network = network
        self.settings = settings

    @classmethod
    def load(cls, path: Path, device: str) -> Detectron2DensePose:
        """Build R_50_FPN_s1x with the weights of `path`, the released `.pkl`, in float32.

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
                hint="Install both from https://github.com/facebookresearch/detectron2, with the torchvision that "
                "belongs to your torch: pip install --no-build-isolation 'detectron2-densepose @ "
                "git+https://github.com/facebookresearch/detectron2@02b5c4e#subdirectory=projects/DensePose'. Or set "
                "'engine.densepose: builtin', which needs neither.",
            ) from error
        settings = DetectorSettings()
        config = get_cfg()
        add_densepose_config(config)
        config.merge_from_list(list(chain.from_iterable(describe_network(settings, device).items())))
        network: nn.Module = build_model(config).eval().requires_grad_(False)
        # Some versions keep constants among the weights; their own values are right.
        names = {name: tensor for name, tensor in network.state_dict().items() if not IGNORED_NAMES.fullmatch(name)}
        weights = load_weights(path, {name: tuple(tensor.shape) for name, tensor in names.items()})
        network.load_state_dict(weights, strict=False)
        return cls(network, settings)

    @torch.inference_mode()
    def label(self, image: np.ndarray) -> np.ndarray:
        """Body parts, uint8 (H, W), 0..24, of the surest person in an RGB picture, uint8 (H, W, 3)."""
        picture = shrink_picture(image)
        size = (picture.shape[0], picture.shape[1])
        seen = torch.from_numpy(resize_picture(picture, working_size(size, self.settings))).permute(2, 0, 1)
        people = self.network([{"image": seen, "height": size[0], "width": size[1]}])[0]["instances"]
        labels = np.zeros(size, dtype=np.uint8)
        if len(people):
            bodies = people.pred_densepose
            labels = paint_body(bodies.coarse_segm[0], bodies.fine_segm[0], people.pred_boxes.tensor[0], size)
        return restore_size(labels, (image.shape[0], image.shape[1]))


def describe_network(settings: DetectorSettings, device: str) -> dict[str, Any]:
    """R_50_FPN_s1x in detectron2's settings, as far as they differ from its defaults (DensePose specification, 1)."""
    return {
        "MODEL.DEVICE": device,
        "MODEL.WEIGHTS": "",
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.OUT_FEATURES": _STAGES,
        "MODEL.FPN.IN_FEATURES": _STAGES,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[size] for size in ANCHOR_SIZES_PX],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
        "MODEL.RPN.IN_FEATURES": [*_PYRAMID, "p6"],
        "MODEL.RPN.PRE_NMS_TOPK_TEST": PROPOSALS_PER_LEVEL,
        "MODEL.RPN.POST_NMS_TOPK_TEST": PROPOSALS,
        "MODEL.DENSEPOSE_ON": True,
        "MODEL.ROI_HEADS.NAME": "DensePoseROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": _PYRAMID,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": settings.score_threshold,
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
        # Not aligned, unlike the default: what these weights were trained with.
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
        "MODEL.ROI_DENSEPOSE_HEAD.NAME": "DensePoseV1ConvXHead",
        "MODEL.ROI_DENSEPOSE_HEAD.POOLER_TYPE": "ROIAlign",
    }
