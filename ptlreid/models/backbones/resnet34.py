"""ResNet-34 (He et al. 2016)."""

from ptlreid.models.resnet import resnet

BACKBONE = resnet("resnet34")
