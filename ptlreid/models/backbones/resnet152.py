"""ResNet-152 (He et al. 2016), with the widths of ResNet-50."""

from ptlreid.models.resnet import resnet

BACKBONE = resnet("resnet152", fusions=(64, 128, 256, 256), cells=(32, 64, 128, 256, 256))
