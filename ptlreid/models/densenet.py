"""torchvision's DenseNets as five Conv-blocks: the stem with its pooling, and the four dense blocks.

A transition belongs to the dense block that follows it, so that each block's map is the full concatenation (2,112
channels after DenseNet-161's third).
"""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from ptlreid.models import staged
from ptlreid.models.network import Backbone
from ptlreid.models.ptl import with_cells
from ptlreid.models.staged import Staged

_BLOCKS = {
    "stem": ("conv0", "norm0", "relu0", "pool0"),
    "dense1": ("denseblock1",),
    "dense2": ("transition1", "denseblock2"),
    "dense3": ("transition2", "denseblock3"),
    "dense4": ("transition3", "denseblock4", "norm5"),
}


def densenet(name: str, **widths: Any) -> Backbone:
    """The `Backbone` of torchvision's network `name`; `widths` as in `with_cells`."""
    layers = [f"features.{part}" for parts in _BLOCKS.values() for part in parts]
    return with_cells(lambda _: _stages(name), rename=_rename, imagenet=staged.imagenet(name), layers=layers, **widths)


def _stages(name: str) -> Staged:
    features = torchvision.models.get_model(name, weights=None).features
    blocks = {
        block: staged.block(**{part: features.get_submodule(part) for part in parts})
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
    block = next((block for block, parts in _BLOCKS.items() if part in parts), None)
    # torchvision's published files have `norm.1` where its modules have `norm1`.
    for layer in ("norm", "relu", "conv"):
        rest = rest.replace(f"{layer}.1.", f"{layer}1.").replace(f"{layer}.2.", f"{layer}2.")
    return None if block is None else f"blocks.{block}.{part}.{rest}"
