"""A backbone of a few thousand weights for fast tests: one file, like every backbone."""

from torch import nn

from ptlreid.models.ptl import with_cells
from ptlreid.models.staged import Staged
from ptlreid.network_types import NetworkSpec

CHANNELS, STRIDES = (4, 6, 8, 10, 12), (4, 1, 2, 2, 2)


def stages(spec: NetworkSpec) -> Staged:
    """Five small Conv-blocks with a total stride of 32, like the real ones."""
    blocks = {}
    in_channels = 3
    for number, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), start=1):
        conv = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        blocks[f"block{number}"] = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())
        in_channels = channels
    return Staged(blocks, CHANNELS, STRIDES)


def rename(key: str) -> str:
    """Its files have its own names."""
    return f"blocks.{key}"


BACKBONE = with_cells(
    stages,
    rename=rename,
    imagenet=dict,
    fusions=(4, 4, 6, 6),
    cells=(4, 4, 6, 6, 8),
    default_width=32,
)
