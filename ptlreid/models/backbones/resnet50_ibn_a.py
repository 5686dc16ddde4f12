"""ResNet-50 with IBN-a (Pan et al. 2018), with the widths of ResNet-50."""

from ptlreid.models.resnet import ibn_a

BACKBONE = ibn_a("resnet50", fusions=(64, 128, 256, 256), cells=(32, 64, 128, 256, 256))
