"""A backbone as the paper sees it: five Conv-blocks, each with its channels and its stride."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torchvision
from torch import Tensor, nn


class Staged(nn.Module):
    """Conv-blocks in a row. `channels`: of each block's output; `strides`: of each block against the one before."""

    def __init__(self, blocks: Mapping[str, nn.Module], channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(blocks)
        self.channels, self.strides = tuple(channels), tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """x1 .. x5 of Eq. 3: the (B, C, H, W) map that each Conv-block gives."""
        maps: list[Tensor] = []
        for block in self.blocks.values():
            maps.append(block(maps[-1] if maps else images))
        return maps


@dataclass(frozen=True)
class Backbone:
    """What one file in `models/backbones` says of itself.

    `stages()`: the Conv-blocks, freshly made. `fusions` and `cells`: channels of the 1×1 convolutions and of
    BConv-Cells 1 to 4. `imagenet()`: torchvision's weights as a state dict in torchvision's names, downloaded or
    from its cache. `rename(key)`: where a torchvision name is found in `Staged`, None for what has no use here.
    """

    stages: Callable[[], Staged]
    fusions: tuple[int, ...]
    cells: tuple[int, ...]
    imagenet: Callable[[], dict[str, Any]]
    rename: Callable[[str], str | None]


def imagenet(name: str) -> dict[str, Any]:
    """torchvision's first ImageNet weights of its network `name`, verified by their checksum.

    The first (V1) are what the paper started from; later recipes fine-tune differently.
    """
    choice = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    weights: dict[str, Any] = choice.get_state_dict(progress=False, check_hash=True)
    return weights
