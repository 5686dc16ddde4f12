"""ResNet-50 (He et al. 2016) with the widths that give the paper's 28 and 35 million parameters (Table 1)."""

from ptlreid.models.resnet import resnet

BACKBONE = resnet("resnet50", fusions=(64, 128, 256, 256), cells=(32, 64, 128, 256, 256), paper=(28, 35))
