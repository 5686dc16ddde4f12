"""Cross-entropy between each head's class scores and the identities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ptlreid.outputs import Output


def loss(output: Output, labels: Tensor) -> Tensor:
    """The mean over heads and images: a scalar. `labels`: (B,) int64 in 0 .. classes - 1.

    Two classes that score alike give ln 2 = 0.693.
    """
    return torch.stack([F.cross_entropy(logits, labels) for logits in output.logits.values()]).mean()
