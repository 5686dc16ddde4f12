"""How new layers start: as in the code that the paper's authors released for MGN."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def kaiming(layer: Layer) -> Layer:
    """The layer, its weights from Kaiming He's normal distribution with variance 2 / fan-in, its bias, if any, zero.

    torch's own initialisation has a sixth of that variance: a cell would contribute almost nothing to the feature at
    the start.
    """
    nn.init.kaiming_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def near_one(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """The batch norm, its weights from N(1, 0.02²), its bias zero."""
    nn.init.normal_(norm.weight, mean=1, std=0.02)
    return norm
