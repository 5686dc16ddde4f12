"""A backbone of a few thousand weights for fast tests: one file, as every backbone is."""

from torch import nn

from ptlreid.models.ptl import with_cells
from ptlreid.models.staged import Staged

CHANNELS, STRIDES = (4, 6, 8, 10, 12), (4, 1, 2, 2, 2)


def stages() -> Staged:
    """Five small Conv-blocks with a stride of 32 in all, as the real ones have."""
    blocks = {}
    before = 3
    for number, (after, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), start=1):
        conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        blocks[f"block{number}"] = nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())
        before = after
    return Staged(blocks, CHANNELS, STRIDES)


BACKBONE = with_cells(
    stages,
    rename=lambda key: f"blocks.{key}",
    imagenet=dict,
    fusions=(4, 4, 6, 6),
    cells=(4, 4, 6, 6, 8),
)
