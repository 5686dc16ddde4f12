"""Weighted regularised triplet loss (AGW: Ye et al., TPAMI 2021, arXiv 2001.04193, Eq. 9 and 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptlreid.distributed import gather_batch
from ptlreid.losses.triplet import find_pairs, measure

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output

NEEDS_POSITIVES = True


def loss(output: Output, labels: Tensor) -> dict[str, Tensor]:
    """`weighted-triplet`: the mean over `output.metric` of the mean over anchors, a scalar. `labels`: (B,).

    For each anchor ln(1 + exp(p - n)), p being the mean distance of its positives with weights softmax(distance), n
    that of its negatives with weights softmax(-distance): far positives and near negatives count most. An anchor
    without either is left out of the mean. The batch is that of all processes.
    """
    import torch

    labels = gather_batch(labels)
    vectors = [gather_batch(metric) for metric in output.metric.values()]
    return {"weighted-triplet": torch.stack([weighted(metric, labels) for metric in vectors]).mean()}


def weighted(vectors: Tensor, labels: Tensor) -> Tensor:
    """The mean over the anchors in `vectors`, (B, width), in float32 even under autocast."""
    from torch.nn import functional as F

    distances = measure(vectors, vectors)
    positive, negative = find_pairs(labels)
    far = _mean(distances, distances, positive)
    near = _mean(distances, -distances, negative)
    counted = positive.any(dim=1) & negative.any(dim=1)
    return F.softplus(far - near).masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


def _mean(distances: Tensor, scores: Tensor, pairs: Tensor) -> Tensor:
    """(B,) the mean distance of the `pairs` with weights softmax(scores); finite where an anchor has none."""
    lowest = -1e30  # not infinite: the softmax of nothing but infinities is no number
    return (scores.masked_fill(~pairs, lowest).softmax(dim=1) * distances).sum(dim=1)
