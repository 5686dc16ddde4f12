"""A backbone as the paper sees it: Conv-blocks in a row, each with its channels and its stride."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
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


def block(**parts: nn.Module) -> nn.Sequential:
    """The parts one after another, under their names."""
    return nn.Sequential(OrderedDict(parts))


def imagenet(name: str) -> Callable[[], dict[str, Any]]:
    """What fetches torchvision's first ImageNet weights of its network `name`, verified by their checksum.

    The first (V1) are what the paper started from; later recipes fine-tune differently.
    """

    def fetch() -> dict[str, Any]:
        choice = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        weights: dict[str, Any] = choice.get_state_dict(progress=False, check_hash=True)
        return weights

    return fetch
