"""The layers of DensePose R_50_FPN_s1x, for inference only, named as in the released weights.

Parameter names follow the key table of the DensePose inference specification, so a file loads without renaming. How
the parts work together is in `densepose_detector.py`. Feature maps are (batch, channels, height, width).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

PYRAMID_CHANNELS = 256
BODY_CHANNELS = 512
BOX_BINS = 7
BODY_BINS = 28
PART_CLASSES = 25  # 24 body parts and background
NORM_EPSILON = 1e-5


class FrozenBatchNorm(nn.Module):
    """Batch normalisation whose four tensors are all constants of the file."""

    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=NORM_EPSILON
        )


class NormedConv(nn.Conv2d):
    """A convolution without bias, followed by frozen batch normalisation; padded to keep the size at stride 1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = FrozenBatchNorm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(super().forward(x))
        return normed


class ReluConv(nn.Conv2d):
    """A 3x3 convolution with bias that keeps the size, followed by ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


class Stem(nn.Module):
    """First layers of the ResNet: picture to 64 channels at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = NormedConv(3, 64, kernel=7, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(self.conv1(x).relu(), kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """One residual block (He et al., 2015). The stride is in the first 1x1 convolution, as the weights expect."""

    def __init__(self, inputs: int, width: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.shortcut = NormedConv(inputs, 4 * width, kernel=1, stride=stride) if first else nn.Identity()
        self.conv1 = NormedConv(inputs, width, kernel=1, stride=stride)
        self.conv2 = NormedConv(width, width, kernel=3)
        self.conv3 = NormedConv(width, 4 * width, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.conv3(self.conv2(self.conv1(x).relu()).relu()) + self.shortcut(x)
        return residual.relu()


def _build_stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride, first=True)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1, first=False) for _ in range(blocks - 1)))


class ResNet50(nn.Module):
    """Four feature maps at strides 4, 8, 16, 32 with 256, 512, 1024, 2048 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.res2 = _build_stage(64, 64, blocks=3, stride=1)
        self.res3 = _build_stage(256, 128, blocks=4, stride=2)
        self.res4 = _build_stage(512, 256, blocks=6, stride=2)
        self.res5 = _build_stage(1024, 512, blocks=3, stride=2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        x = self.stem(x)
        for stage in (self.res2, self.res3, self.res4, self.res5):
            x = stage(x)
            features.append(x)
        return features


class FeaturePyramid(nn.Module):
    """Feature Pyramid Network (Lin et al., 2017): a padded picture (B, 3, H, W) to p2..p6, strides 4..64, 256 channels.

    H and W are multiples of 32, so that every map is exactly half the size of the one below it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bottom_up = ResNet50()
        for level, channels in zip((2, 3, 4, 5), (256, 512, 1024, 2048), strict=True):
            self.add_module(f"fpn_lateral{level}", nn.Conv2d(channels, PYRAMID_CHANNELS, 1))
            self.add_module(f"fpn_output{level}", nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, padding=1))

    def forward(self, picture: torch.Tensor) -> list[torch.Tensor]:
        features = self.bottom_up(picture)
        top = self.get_submodule("fpn_lateral5")(features[3])
        maps = [self.get_submodule("fpn_output5")(top)]
        for level in (4, 3, 2):
            top = functional.interpolate(top, scale_factor=2, mode="nearest")
            top = top + self.get_submodule(f"fpn_lateral{level}")(features[level - 2])
            maps.insert(0, self.get_submodule(f"fpn_output{level}")(top))
        return [*maps, maps[-1][:, :, ::2, ::2]]


class ProposalHead(nn.Module):
    """For one pyramid map: three person-or-not logits (B, 3, H, W) and their box deltas (B, 12, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ReluConv(PYRAMID_CHANNELS, PYRAMID_CHANNELS)
        self.objectness_logits = nn.Conv2d(PYRAMID_CHANNELS, 3, 1)
        self.anchor_deltas = nn.Conv2d(PYRAMID_CHANNELS, 12, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.conv(x)
        return self.objectness_logits(hidden), self.anchor_deltas(hidden)


class ProposalGenerator(nn.Module):
    """Holds the head under the name that the weights use."""

    def __init__(self) -> None:
        super().__init__()
        self.rpn_head = ProposalHead()


class BoxHead(nn.Module):
    """Pooled boxes (n, 256, 7, 7) to (n, 1024)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PYRAMID_CHANNELS * BOX_BINS * BOX_BINS, 1024)
        self.fc2 = nn.Linear(1024, 1024)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.fc2(self.fc1(pooled.flatten(1)).relu())
        return hidden.relu()


class BoxPredictor(nn.Module):
    """(n, 1024) to logits (n, 2), person first and then background, and box deltas (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_score = nn.Linear(1024, 2)
        self.bbox_pred = nn.Linear(1024, 4)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cls_score(hidden), self.bbox_pred(hidden)


def _build_decoder_level(rounds: int, *, upsample: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(rounds):
        layers.append(ReluConv(PYRAMID_CHANNELS, PYRAMID_CHANNELS))
        if upsample:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


class Decoder(nn.Module):
    """Brings p2..p5 to stride 4 and sums them to one map (B, 256, H / 4, W / 4), the one DensePose pools from."""

    def __init__(self) -> None:
        super().__init__()
        self.p2 = _build_decoder_level(1, upsample=False)
        self.p3 = _build_decoder_level(1, upsample=True)
        self.p4 = _build_decoder_level(2, upsample=True)
        self.p5 = _build_decoder_level(3, upsample=True)
        self.predictor = nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 1)

    def forward(self, p2: torch.Tensor, p3: torch.Tensor, p4: torch.Tensor, p5: torch.Tensor) -> torch.Tensor:
        fused: torch.Tensor = self.predictor(self.p2(p2) + self.p3(p3) + self.p4(p4) + self.p5(p5))
        return fused


class PartPredictor(nn.Module):
    """Body features (n, 512, 28, 28) to logits at 112 x 112: coarse (n, 2), person or not, and fine (n, 25) parts.

    The file's two surface-coordinate layers are kept, so that the whole key table is loaded and checked, but are not
    run: try-on needs the parts alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ann_index_lowres = _build_enlarger(2)
        self.index_uv_lowres = _build_enlarger(PART_CLASSES)
        self.u_lowres = _build_enlarger(PART_CLASSES)
        self.v_lowres = _build_enlarger(PART_CLASSES)

    def forward(self, body: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.enlarge(self.ann_index_lowres, body), self.enlarge(self.index_uv_lowres, body)

    @staticmethod
    def enlarge(layer: nn.Module, body: torch.Tensor) -> torch.Tensor:
        """Run one layer (28 to 56) and double its size once more."""
        return functional.interpolate(layer(body), scale_factor=2, mode="bilinear", align_corners=False)


def _build_enlarger(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(BODY_CHANNELS, channels, kernel_size=4, stride=2, padding=1)


class RoiHeads(nn.Module):
    """Everything that works on boxes; holds the parts under the names that the weights use."""

    def __init__(self) -> None:
        super().__init__()
        self.box_head = BoxHead()
        self.box_predictor = BoxPredictor()
        self.decoder = Decoder()
        inputs = [PYRAMID_CHANNELS] + [BODY_CHANNELS] * 7
        layers = [(f"body_conv_fcn{n}", ReluConv(c, BODY_CHANNELS)) for n, c in enumerate(inputs, start=1)]
        self.densepose_head = nn.Sequential(OrderedDict(layers))
        self.densepose_predictor = PartPredictor()


class DensePoseNetwork(nn.Module):
    """All layers. Call the parts: there is no single forward pass, as most boxes never reach the last ones."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = FeaturePyramid()
        self.proposal_generator = ProposalGenerator()
        self.roi_heads = RoiHeads()
