"""How new layers start: as in the MGN code that the paper's authors built on (github.com/GNAYUOHZ/ReID-MGN)."""

from __future__ import annotations

from typing import Literal, TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def kaiming(layer: Layer, mode: Literal["fan_in", "fan_out"] = "fan_in") -> Layer:
    """The layer, its weights from Kaiming He's normal distribution with variance 2 / fan, its bias, if any, zero.

    torch's own initialisation has a sixth of that variance with `fan_in`: a cell would contribute almost nothing to
    the feature at the start.
    """
    nn.init.kaiming_normal_(layer.weight, mode=mode)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def near_one(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """The batch norm, its weights from N(1, 0.02²), its bias zero."""
    nn.init.normal_(norm.weight, mean=1, std=0.02)
    return norm
