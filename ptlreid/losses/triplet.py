"""Batch-hard triplet loss (Hermans et al. 2017, arXiv 1703.07737, Eq. 5), by Euclidean distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ptlreid.network_types import Output


def loss(output: Output, labels: Tensor, *, margin: float = 0.3) -> dict[str, Tensor]:
    """`triplet`: the mean over `output.metric` of the mean over anchors, a scalar. `labels`: (B,).

    For each image as anchor max(0, margin + farthest of the same person - nearest of another): at 1 and 4 with margin
    5, that is 2. An anchor that has no other image of its person in the batch is left out of the mean; a batch without
    any triplet costs 0, with gradients of 0.
    """
    vectors = output.metric.values()
    return {"triplet": torch.stack([batch_hard(metric, labels, margin) for metric in vectors]).mean()}


def batch_hard(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The mean over the anchors among `vectors`, (B, width). In float32 even under autocast."""
    distances = _distances(vectors)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    # Where there is none, the farthest is -inf or the nearest inf, and the margin is kept whatever it is.
    farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(same, torch.inf).amin(dim=1)
    return F.relu(margin + farthest - nearest).sum() / positive.any(dim=1).sum().clamp(min=1)


def _distances(vectors: Tensor) -> Tensor:
    """(B, B) Euclidean distances; equal vectors are 0 apart, with a gradient of 0, where a plain root has none."""
    vectors = vectors.float()
    # Not by a matrix product, which loses the digits of small distances, and which autocast would make in bf16.
    return torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
