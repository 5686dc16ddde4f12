"""MobileNetV3 (Howard et al. 2019), small."""

from ptlreid.models.ptl import SMALL_CELLS, SMALL_FUSIONS
from ptlreid.models.sequential import sequential

BACKBONE = sequential(
    "mobilenet_v3_small",
    cuts=(0, 2, 4, 7, 9, 13),
    channels=(16, 24, 40, 48, 576),
    strides=(4, 2, 2, 1, 2),
    fusions=SMALL_FUSIONS,
    cells=SMALL_CELLS,
)
