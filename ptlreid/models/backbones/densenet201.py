"""DenseNet-201 (Huang et al. 2017)."""

from ptlreid.models.densenet import densenet

BACKBONE = densenet("densenet201")
