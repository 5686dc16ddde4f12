"""ResNets of torchvision as five Conv-blocks: the stem with its pooling, and layers 1 to 4."""

from __future__ import annotations

from collections import OrderedDict

import torchvision
from torch import nn

from ptlreid.models.staged import Backbone, Staged, imagenet


def resnet(name: str, fusions: tuple[int, ...], cells: tuple[int, ...]) -> Backbone:
    """The `Backbone` of torchvision's network `name`."""
    return Backbone(
        stages=lambda: _stages(name),
        fusions=fusions,
        cells=cells,
        imagenet=lambda: imagenet(name),
        rename=_rename,
    )


def _stages(name: str) -> Staged:
    net = torchvision.models.get_model(name, weights=None)
    blocks = {
        "stem": nn.Sequential(OrderedDict(conv1=net.conv1, bn1=net.bn1, relu=net.relu, pool=net.maxpool)),
        "layer1": net.layer1,
        "layer2": net.layer2,
        "layer3": net.layer3,
        "layer4": net.layer4,
    }
    top = net.fc.in_features
    return Staged(blocks, channels=(64, top // 8, top // 4, top // 2, top), strides=(4, 1, 2, 2, 2))


def _rename(key: str) -> str | None:
    if key.startswith("fc."):
        return None
    return f"blocks.stem.{key}" if key.startswith(("conv1.", "bn1.")) else f"blocks.{key}"
