"""torchvision's networks whose `features` is one sequence of layers, cut into five Conv-blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torchvision

from ptlreid.models import staged
from ptlreid.models.network import Backbone
from ptlreid.models.ptl import with_cells
from ptlreid.models.staged import Staged
from ptlreid.network_types import NetworkSpec


def sequential(
    name: str, *, cuts: Sequence[int], channels: Sequence[int], strides: Sequence[int], **widths: Any
) -> Backbone:
    """The `Backbone` of torchvision's network `name`: block i is layers `cuts[i]` to `cuts[i + 1]`, the last excluded.

    `channels`, `strides`: of each block, as in `Staged`. `widths`: as in `with_cells`.
    """

    def stages(spec: NetworkSpec) -> Staged:
        features = torchvision.models.get_model(name, weights=None).features
        assert cuts[-1] == len(features), f"{name} has {len(features)} layers"
        blocks = {
            f"block{number}": staged.block(**{str(i): features[i] for i in range(first, last)})
            for number, (first, last) in enumerate(pairwise(cuts), start=1)
        }
        return Staged(blocks, channels, strides)

    layers = [str(number) for number in range(cuts[-1])]

    def rename(key: str) -> str | None:
        parent, _, rest = key.partition(".")
        layer = rest.partition(".")[0]
        if parent != "features" or layer not in layers:
            return None
        number = sum(cut <= int(layer) for cut in cuts)
        return f"blocks.block{number}.{rest}"

    return with_cells(
        stages,
        rename=rename,
        imagenet=staged.imagenet(name),
        layers=[f"features.{layer}" for layer in layers],
        **widths,
    )
