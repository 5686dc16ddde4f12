"""torchvision's ResNets as five Conv-blocks: the stem with its pooling, and layers 1 to 4; with IBN-a, too."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ptlreid.models import staged
from ptlreid.models.network import Backbone
from ptlreid.models.ptl import with_cells
from ptlreid.models.staged import Staged
from ptlreid.network_types import NetworkSpec

# torchvision's children, in order, up to the last map.
LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def resnet(name: str, **widths: Any) -> Backbone:
    """The `Backbone` of torchvision's network `name`; `widths` as in `with_cells`."""
    return with_cells(lambda _: _stages(name), rename=rename, imagenet=staged.imagenet(name), layers=LAYERS, **widths)


class IBN(nn.Module):
    """Instance norm of the first half of the channels, batch norm of the others; names as in the authors' files."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.IN = nn.InstanceNorm2d(half, affine=True)
        self.BN = nn.BatchNorm2d(channels - half)

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.split([self.IN.num_features, self.BN.num_features], dim=1)
        return torch.cat([self.IN(one), self.BN(other)], dim=1)


def ibn_a(name: str, **widths: Any) -> Backbone:
    """The `Backbone` of torchvision's network `name` with IBN-a (Pan et al., ECCV 2018), the variant for appearance.

    `IBN` takes the place of the first batch norm in each residual block of layers 1 to 3: deep layers lose none of the
    variance of their channels, and no norm after an addition is changed. `widths` as in `with_cells`.
    """

    def stages(_: NetworkSpec) -> Staged:
        net = _stages(name)
        for layer in ("layer1", "layer2", "layer3"):
            residual: Any
            for residual in net.blocks.get_submodule(layer).children():
                residual.bn1 = IBN(residual.bn1.num_features)
        return net

    return with_cells(stages, rename=rename, imagenet=staged.not_there(f"{name}-ibn-a"), layers=LAYERS, **widths)


def stem(net: torchvision.models.ResNet) -> nn.Sequential:
    """Everything before layer 1: stride 4."""
    return staged.block(conv1=net.conv1, bn1=net.bn1, relu=net.relu, pool=net.maxpool)


def rename(key: str) -> str | None:
    """The name in the Conv-blocks of torchvision's tensor `key`; None for its classifier."""
    if key.startswith("fc."):
        return None
    return f"blocks.stem.{key}" if key.startswith(("conv1.", "bn1.")) else f"blocks.{key}"


def _stages(name: str) -> Staged:
    net = torchvision.models.get_model(name, weights=None)
    blocks = {"stem": stem(net), **{f"layer{i}": net.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)}}
    top = net.fc.in_features
    return Staged(blocks, channels=(64, top // 8, top // 4, top // 2, top), strides=(4, 1, 2, 2, 2))
