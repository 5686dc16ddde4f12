"""The tiny backbone with a head of the real width: most of a network's bytes are weights, as they are in real ones."""

from ptlreid.models.backbones.tiny import BACKBONE as TINY
from ptlreid.models.backbones.tiny import rename, stages

from ptlreid.models.ptl import with_cells

BACKBONE = with_cells(stages, rename=rename, imagenet=TINY.imagenet, fusions=(4, 4, 6, 6), cells=(4, 4, 6, 6, 8))
