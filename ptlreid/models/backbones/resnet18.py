"""ResNet-18 (He et al. 2016), small enough for CPUs."""

from ptlreid.models.resnet import resnet

BACKBONE = resnet("resnet18")
