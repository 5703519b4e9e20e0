"""AugmentCE2P, SCHP's network (FastFit inference specification, section 3.5).

A ResNet-101 that ends at stride 16, a pyramid pooling head, an edge branch and a fusion of both at stride 4.
Module names are those of the released weights, `fushion` included. Papers: Ruan et al. 2019 (CE2P), Li et al. 2020
(SCHP), Zhao et al. 2017 (pyramid pooling).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_SLOPE = 0.01
_EXPANSION = 4


class AugmentCE2P(nn.Module):
    """Picture (B, 3, S, S), normalised, to label logits (B, classes, S/4, S/4) with S/4 rounded up."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3(3, 64, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = _conv3(64, 64), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = _conv3(64, 128), nn.BatchNorm2d(128)
        self.layer1 = _stage(128, 64, blocks=3)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=23, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, dilation=2)
        self.context_encoding = _PyramidPooling()
        self.decoder = _Decoder()
        self.edge = _EdgeBranch()
        self.fushion = nn.Sequential(*_norm_conv(1024, 256), nn.Dropout(), nn.Conv2d(256, classes, kernel_size=1))

    def forward(self, picture: Tensor) -> Tensor:
        """Return logits, (B, classes, ceil(S/4), ceil(S/4))."""
        x = functional.relu(self.bn1(self.conv1(picture)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = functional.relu(self.bn3(self.conv3(x)))
        quarter = self.layer1(functional.max_pool2d(x, kernel_size=3, stride=2, padding=1))
        eighth = self.layer2(quarter)
        sixteenth = self.layer3(eighth)
        context = self.context_encoding(self.layer4(sixteenth))
        parts = self.decoder(context, quarter)
        edges = self.edge(quarter, eighth, sixteenth)
        logits: Tensor = self.fushion(torch.cat([parts, edges], dim=1))
        return logits


class _Bottleneck(nn.Module):
    """ResNet bottleneck; the stride sits on the 3x3 convolution."""

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = planes * _EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv3(planes, planes, stride, dilation), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class _PyramidPooling(nn.Module):
    """Averages over 1, 2, 3 and 6 cells a side, laid beside the features they came from: 2048 to 512 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), *_norm_conv(2048, 512)) for cells in (1, 2, 3, 6)
        )
        self.bottleneck = nn.Sequential(*_norm_conv(4 * 512 + 2048, 512, kernel=3))

    def forward(self, x: Tensor) -> Tensor:
        pooled = [_resize_like(stage(x), x) for stage in self.stages]
        y: Tensor = self.bottleneck(torch.cat([*pooled, x], dim=1))
        return y


class _Decoder(nn.Module):
    """Brings the context up to stride 4 and joins it with the early features: 256 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_norm_conv(512, 256))
        self.conv2 = nn.Sequential(*_norm_conv(256, 48))
        self.conv3 = nn.Sequential(*_norm_conv(304, 256), *_norm_conv(256, 256))

    def forward(self, context: Tensor, quarter: Tensor) -> Tensor:
        raised = _resize_like(self.conv1(context), quarter)
        y: Tensor = self.conv3(torch.cat([raised, self.conv2(quarter)], dim=1))
        return y


class _EdgeBranch(nn.Module):
    """Edge features of three depths at stride 4: 768 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_norm_conv(256, 256))
        self.conv2 = nn.Sequential(*_norm_conv(512, 256))
        self.conv3 = nn.Sequential(*_norm_conv(1024, 256))
        # Trained with the rest and part of every weight file; its edge picture is not needed for labels.
        self.conv4 = nn.Conv2d(256, 2, kernel_size=3, padding=1)

    def forward(self, quarter: Tensor, eighth: Tensor, sixteenth: Tensor) -> Tensor:
        first = self.conv1(quarter)
        deeper = [_resize_like(self.conv2(eighth), first), _resize_like(self.conv3(sixteenth), first)]
        return torch.cat([first, *deeper], dim=1)


def _conv3(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


def _norm_conv(inputs: int, outputs: int, kernel: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(_SLOPE)


def _stage(inputs: int, planes: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = _Bottleneck(inputs, planes, stride, dilation)
    rest = [_Bottleneck(planes * _EXPANSION, planes, 1, dilation) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def _resize_like(x: Tensor, target: Tensor) -> Tensor:
    return functional.interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=True)
