"""ConvNeXt-tiny (Liu et al. 2022)."""

from ptlreid.models.sequential import sequential

BACKBONE = sequential(
    "convnext_tiny",
    cuts=(0, 1, 2, 4, 6, 8),
    channels=(96, 96, 192, 384, 768),
    strides=(4, 1, 2, 2, 2),
)
