"""ResNet-18 (He et al. 2016), the small one for CPUs."""

from ptlreid.models.resnet import resnet

BACKBONE = resnet("resnet18", fusions=(32, 32, 64, 128), cells=(32, 32, 64, 128))
