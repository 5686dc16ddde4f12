"""DenseNets of torchvision as five Conv-blocks: the stem with its pooling, and the four dense blocks.

A transition belongs to the dense block after it, so that each block's map is the full concatenation (2,112
channels after DenseNet-161's third).
"""

from __future__ import annotations

from collections import OrderedDict

import torchvision
from torch import nn

from ptlreid.models.staged import Backbone, Staged, imagenet

_BLOCKS = {
    "stem": ("conv0", "norm0", "relu0", "pool0"),
    "dense1": ("denseblock1",),
    "dense2": ("transition1", "denseblock2"),
    "dense3": ("transition2", "denseblock3"),
    "dense4": ("transition3", "denseblock4", "norm5"),
}


def densenet(name: str, fusions: tuple[int, ...], cells: tuple[int, ...]) -> Backbone:
    """The `Backbone` of torchvision's network `name`."""
    return Backbone(
        stages=lambda: _stages(name),
        fusions=fusions,
        cells=cells,
        imagenet=lambda: imagenet(name),
        rename=_rename,
    )


def _stages(name: str) -> Staged:
    features = torchvision.models.get_model(name, weights=None).features
    blocks = {
        block: nn.Sequential(OrderedDict((part, features.get_submodule(part)) for part in parts))
        for block, parts in _BLOCKS.items()
    }
    blocks["dense4"].append(nn.ReLU(inplace=True))  # torchvision applies it after `features`
    after = [features.get_submodule(f"transition{i}").norm.num_features for i in (1, 2, 3)]
    channels = (features.conv0.out_channels, *after, features.norm5.num_features)
    return Staged(blocks, channels, strides=(4, 1, 2, 2, 2))


def _rename(key: str) -> str | None:
    if not key.startswith("features."):
        return None
    part, _, rest = key.removeprefix("features.").partition(".")
    block = next(block for block, parts in _BLOCKS.items() if part in parts)
    # torchvision's own loading renames `norm.1` of its oldest files, in the same way.
    for layer in ("norm", "relu", "conv"):
        rest = rest.replace(f"{layer}.1.", f"{layer}1.").replace(f"{layer}.2.", f"{layer}2.")
    return f"blocks.{block}.{part}.{rest}"
