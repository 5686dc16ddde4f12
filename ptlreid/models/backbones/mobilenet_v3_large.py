"""MobileNetV3 (Howard et al. 2019), large."""

from ptlreid.models.ptl import SMALL_CELLS, SMALL_FUSIONS
from ptlreid.models.sequential import sequential

BACKBONE = sequential(
    "mobilenet_v3_large",
    cuts=(0, 4, 7, 11, 13, 17),
    channels=(24, 40, 80, 112, 960),
    strides=(4, 2, 2, 1, 2),
    fusions=SMALL_FUSIONS,
    cells=SMALL_CELLS,
)
