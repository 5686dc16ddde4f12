"""MobileNetV2 (Sandler et al. 2018)."""

from ptlreid.models.ptl import SMALL_CELLS, SMALL_FUSIONS
from ptlreid.models.sequential import sequential

BACKBONE = sequential(
    "mobilenet_v2",
    cuts=(0, 4, 7, 11, 14, 19),
    channels=(24, 32, 64, 96, 1280),
    strides=(4, 2, 2, 1, 2),
    fusions=SMALL_FUSIONS,
    cells=SMALL_CELLS,
)
