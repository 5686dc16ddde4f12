"""torchvision's ResNets as five Conv-blocks: the stem with its pooling, and layers 1 to 4."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from ptlreid.models import staged
from ptlreid.models.network import Backbone
from ptlreid.models.ptl import with_cells
from ptlreid.models.staged import Staged

# torchvision's children, in order, up to the last map.
LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def resnet(name: str, **widths: Any) -> Backbone:
    """The `Backbone` of torchvision's network `name`; `widths` as in `with_cells`."""
    return with_cells(lambda _: _stages(name), rename=rename, imagenet=staged.imagenet(name), layers=LAYERS, **widths)


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
