"""ResNet-18 with IBN-a (Pan et al. 2018)."""

from ptlreid.models.resnet import ibn_a

BACKBONE = ibn_a("resnet18")
