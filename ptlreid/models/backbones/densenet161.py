"""DenseNet-161 (Huang et al. 2017) with the widths that give the paper's 32 and 42 million parameters (Table 1)."""

from ptlreid.models.densenet import densenet

BACKBONE = densenet("densenet161", fusions=(64, 128, 256, 512), cells=(32, 64, 256, 512, 128), paper=(32, 42))
