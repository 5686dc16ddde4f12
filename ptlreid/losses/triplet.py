"""Batch-hard triplet loss (Hermans et al. 2017, arXiv 1703.07737, Eq. 5) with Euclidean distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from ptlreid.distributed import gather_batch

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output

NEEDS_POSITIVES = True


class Settings(BaseModel):
    """Settings of the triplet loss."""

    margin: float = Field(0.3, ge=0, le=1000, description="Margin of the triplet loss.")


def loss(output: Output, labels: Tensor, *, margin: float) -> dict[str, Tensor]:
    """`triplet`: the mean over `output.metric` of the mean over anchors, a scalar. `labels`: (B,).

    For each anchor max(0, margin + farthest positive - nearest negative): distances 1 and 4 with margin 5 give 2. An
    anchor without a positive (another image of its identity in the batch) is left out of the mean; a batch without a
    triplet has loss 0 and zero gradient. The batch is that of all processes.
    """
    import torch

    labels = gather_batch(labels)
    vectors = [gather_batch(metric) for metric in output.metric.values()]
    return {"triplet": torch.stack([batch_hard(metric, labels, margin) for metric in vectors]).mean()}


def batch_hard(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The mean over the anchors in `vectors`, (B, width), in float32 even under autocast."""
    positive, negative = find_pairs(labels)
    return hinge(measure(vectors, vectors), positive, negative, margin)


def find_pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, B) each: whether two images of a batch are different ones of one identity, and whether of two identities."""
    import torch

    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def hinge(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """The mean over anchors with a positive of max(0, margin + farthest positive - nearest negative); (B, N) each."""
    import torch
    from torch.nn import functional as F

    # Without a positive the farthest is -inf, without a negative the nearest inf: either way the hinge gives 0.
    farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~negative, torch.inf).amin(dim=1)
    return F.relu(margin + farthest - nearest).sum() / positive.any(dim=1).sum().clamp(min=1)


def measure(vectors: Tensor, others: Tensor) -> Tensor:
    """(B, N) Euclidean distances; 0 with zero gradient for equal vectors, where a plain square root gives NaN."""
    import torch

    # Not by a matrix product, which is imprecise for small distances, and which autocast would compute in bf16.
    return torch.cdist(vectors.float(), others.float(), compute_mode="donot_use_mm_for_euclid_dist")
