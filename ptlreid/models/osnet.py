"""OSNet (Zhou et al., ICCV 2019) and OSNet-AIN (Zhou et al., TPAMI 2021) as five Conv-blocks.

As in Table 1 of the first paper: the stem with its pooling, three pairs of omni-scale bottlenecks, and a 1×1
convolution; a transition, which halves the map, belongs to the pair that follows it. The feature of both is a fully
connected layer with batch norm and ReLU.
"""

from __future__ import annotations

import re
from functools import reduce

import torch
from torch import Tensor, nn

from ptlreid.models import staged
from ptlreid.models.initialisation import kaiming
from ptlreid.models.network import Backbone
from ptlreid.models.ptl import SMALL_CELLS, SMALL_FUSIONS, with_cells
from ptlreid.models.staged import Staged

WIDTHS = (64, 256, 384, 512)  # of the stem and the three pairs, times the width multiplier
FEATURE_WIDTH = 512  # at any multiplier
# Which have instance norm: the stem, and each bottleneck of the three pairs. OSNet-AIN has what its search found.
PLAIN = (False, False, False, False, False, False, False)
AIN = (True, True, True, False, True, True, False)


def osnet(multiplier: float, *, instance_norm: tuple[bool, ...] = PLAIN) -> Backbone:
    """The `Backbone` of OSNet with this width multiplier and with `instance_norm` as in `PLAIN` or `AIN`."""
    return with_cells(
        lambda _: _stages(multiplier, instance_norm),
        rename=_rename,
        imagenet=staged.not_there("OSNet"),
        fusions=SMALL_FUSIONS,
        cells=SMALL_CELLS,
        default_width=FEATURE_WIDTH,
        reduction=_reduction,
    )


class Bottleneck(nn.Module):
    """The omni-scale residual block (Figure 4): streams of one to four light 3×3 convolutions, joined by one gate.

    A stream of t convolutions sees 2t + 1 positions across. The gate is the same for all streams (Eq. 2 and 3). With
    `instance_norm`, it takes the place of the last batch norm, inside the residual.
    """

    def __init__(self, in_channels: int, channels: int, instance_norm: bool) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = _pointwise(in_channels, inner)
        self.streams = nn.ModuleList(nn.Sequential(*(_light(inner) for _ in range(t))) for t in (1, 2, 3, 4))
        self.gate = Gate(inner)
        self.conv3 = staged.block(conv=_conv(inner, channels, 1), bn=_norm(channels, instance_norm))
        self.downsample = nn.Sequential() if in_channels == channels else _pointwise(in_channels, channels)[:2]

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(x)  # (B, C / 4, H, W)
        joined = reduce(torch.add, (self.gate(stream(narrow)) for stream in self.streams))
        return torch.relu(self.conv3(joined) + self.downsample(x))


class Gate(nn.Module):
    """The unified aggregation gate: each channel times a weight from the channels' means, by a small network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = kaiming(nn.Conv2d(channels, channels // 16, 1))
        self.fc2 = kaiming(nn.Conv2d(channels // 16, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


def _stages(multiplier: float, instance_norm: tuple[bool, ...]) -> Staged:
    stem, *pairs = (int(width * multiplier) for width in WIDTHS)
    conv1 = staged.block(conv=_conv(3, stem, 7, stride=2), bn=_norm(stem, instance_norm[0]), relu=nn.ReLU(inplace=True))
    blocks: dict[str, nn.Module] = {"stem": staged.block(conv1=conv1, pool=nn.MaxPool2d(3, stride=2, padding=1))}
    width = stem
    for number, channels in enumerate(pairs):
        shrink = {"transition": _pointwise(width, width), "pool": nn.AvgPool2d(2)} if number else {}
        first, second = instance_norm[1 + 2 * number : 3 + 2 * number]
        pair = {"0": Bottleneck(width, channels, first), "1": Bottleneck(channels, channels, second)}
        blocks[f"conv{number + 2}"] = staged.block(**shrink, **pair)
        width = channels
    blocks["conv5"] = _pointwise(width, width)
    return Staged(blocks, channels=(stem, *pairs, width), strides=(4, 1, 2, 2, 1))


def _reduction(in_channels: int, width: int) -> nn.Sequential:
    """The fully connected layer with batch norm and ReLU that makes the feature of the pooled (B, C, 1, 1) map."""
    linear = kaiming(nn.Linear(in_channels, width))
    return staged.block(flatten=nn.Flatten(), linear=linear, bn=nn.BatchNorm1d(width), relu=nn.ReLU(inplace=True))


def _conv(in_channels: int, channels: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that changes the map's size by its stride only."""
    return kaiming(nn.Conv2d(in_channels, channels, size, stride, padding=size // 2, groups=groups, bias=False))


def _norm(channels: int, instance_norm: bool) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True) if instance_norm else nn.BatchNorm2d(channels)


def _pointwise(in_channels: int, channels: int) -> nn.Sequential:
    conv = _conv(in_channels, channels, 1)
    return staged.block(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True))


def _light(channels: int) -> nn.Sequential:
    """The light 3×3 convolution (Figure 3): 1×1, then 3×3 in each channel alone."""
    conv1, conv2 = _conv(channels, channels, 1), _conv(channels, channels, 3, groups=channels)
    return staged.block(conv1=conv1, conv2=conv2, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True))


# Names in the files that the authors publish, and ours: OSNet's and OSNet-AIN's differ in transitions and streams.
_NAMES = (
    (r"^conv1\.", "stem.conv1."),
    (r"^(conv2\.2|pool2)\.0\.", "conv3.transition."),
    (r"^(conv3\.2|pool3)\.0\.", "conv4.transition."),
    (r"\.conv2a\.", ".streams.0.0."),
    (r"\.conv2b\.", ".streams.1."),
    (r"\.conv2c\.", ".streams.2."),
    (r"\.conv2d\.", ".streams.3."),
    (r"\.conv2\.(\d)\.layers\.", r".streams.\1."),
    (r"\.IN\.", ".conv3.bn."),
    (r"^fc\.0\.", "head.reduce.linear."),
    (r"^fc\.1\.", "head.reduce.bn."),
)


def _rename(key: str) -> str | None:
    """The name of tensor `key` of a published file, as in `with_cells`."""
    for pattern, ours in _NAMES:
        key = re.sub(pattern, ours, key)
    return key if key.startswith("head.") else f"blocks.{key}"
