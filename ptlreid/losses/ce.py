"""Cross-entropy between each head's class scores and the identities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ptlreid.network_types import Output


def loss(output: Output, labels: Tensor, *, label_smoothing: float = 0.0) -> dict[str, Tensor]:
    """`ce`: the mean over heads and images, a scalar. `labels`: (B,) int64 in 0 .. classes - 1.

    Two classes that score alike give ln 2 = 0.693. `label_smoothing` spreads that share of each label evenly over all
    classes (Szegedy et al., CVPR 2016).
    """
    heads = [F.cross_entropy(head, labels, label_smoothing=label_smoothing) for head in output.logits.values()]
    return {"ce": torch.stack(heads).mean()}
