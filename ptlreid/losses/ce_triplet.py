"""Cross-entropy and batch-hard triplet loss together, as MGN combines them (Wang et al. 2018, section 3.3)."""

from __future__ import annotations

from torch import Tensor

from ptlreid.losses import ce, triplet
from ptlreid.network_types import Output


def loss(output: Output, labels: Tensor, *, label_smoothing: float = 0.0, margin: float = 0.3) -> dict[str, Tensor]:
    """`ce`, the mean over heads, and `triplet`, the mean over the vectors of `output.metric`; both weigh 1."""
    return ce.loss(output, labels, label_smoothing=label_smoothing) | triplet.loss(output, labels, margin=margin)
