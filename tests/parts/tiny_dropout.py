"""The tiny backbone with dropout: a network that uses random numbers in training."""

from ptlreid.models.backbones.tiny import BACKBONE as TINY
from ptlreid.models.backbones.tiny import rename
from ptlreid.models.backbones.tiny import stages as tiny_stages
from torch import nn

from ptlreid.models.ptl import with_cells
from ptlreid.models.staged import Staged
from ptlreid.network_types import NetworkSpec


def stages(spec: NetworkSpec) -> Staged:
    """The tiny stages, with dropout after the third."""
    staged = tiny_stages(spec)
    staged.blocks["block3"].append(nn.Dropout2d(0.5))
    return staged


BACKBONE = with_cells(
    stages,
    rename=rename,
    imagenet=TINY.imagenet,
    fusions=(4, 4, 6, 6),
    cells=(4, 4, 6, 6, 8),
    default_width=32,
)
