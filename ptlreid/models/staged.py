"""A backbone as in the paper: a sequence of Conv-blocks, each with its channels and its stride."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torchvision
from torch import Tensor, nn


class Staged(nn.Module):
    """A sequence of Conv-blocks. `channels`: of each block's output; `strides`: of each block."""

    def __init__(self, blocks: Mapping[str, nn.Module], channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(blocks)
        self.channels, self.strides = tuple(channels), tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """x1 .. x5 of Eq. 3: the (B, C, H, W) output of each Conv-block."""
        maps: list[Tensor] = []
        for block in self.blocks.values():
            maps.append(block(maps[-1] if maps else images))
        return maps


def block(**parts: nn.Module) -> nn.Sequential:
    """A Conv-block: the parts in sequence, under their names."""
    return nn.Sequential(OrderedDict(parts))


def imagenet(name: str) -> Callable[[], dict[str, Any]]:
    """A function that returns torchvision's first ImageNet weights (V1) of network `name`, their checksum verified.

    V1 is what the paper started from; weights of later recipes fine-tune differently.
    """

    def fetch() -> dict[str, Any]:
        choice = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        weights: dict[str, Any] = choice.get_state_dict(progress=False, check_hash=True)
        return weights

    return fetch
