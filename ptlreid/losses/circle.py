"""Circle loss between the images of a batch (Sun et al., CVPR 2020, Eq. 6), with cosine similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from ptlreid.distributed import gather_batch
from ptlreid.losses.triplet import find_pairs, measure

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output

NEEDS_POSITIVES = True


class Settings(BaseModel):
    """Settings of the circle loss; the defaults are the paper's for person re-identification."""

    circle_margin: float = Field(0.25, ge=0, le=1, description="Margin m of the circle loss.")
    circle_scale: float = Field(128.0, gt=0, le=1000, description="Scale γ of the circle loss.")


def loss(output: Output, labels: Tensor, *, circle_margin: float, circle_scale: float) -> dict[str, Tensor]:
    """`circle`: the mean over `output.metric` of the mean over anchors, a scalar. `labels`: (B,).

    For each anchor ln(1 + Σ exp(γ [s + m]₊ (s - m)) · Σ exp(-γ [1 + m - s]₊ (s - 1 + m))), the first sum over the
    similarities of its negatives, the second over those of its positives; no gradient flows through [·]₊. An anchor
    without either is left out of the mean. The batch is that of all processes.
    """
    import torch

    labels = gather_batch(labels)
    vectors = [gather_batch(metric) for metric in output.metric.values()]
    return {"circle": torch.stack([circle(metric, labels, circle_margin, circle_scale) for metric in vectors]).mean()}


def circle(vectors: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """The mean over the anchors in `vectors`, (B, width), in float32 even under autocast."""
    from torch.nn import functional as F

    unit = F.normalize(vectors.float(), dim=1)
    similarity = 1 - measure(unit, unit).square() / 2  # the cosine; autocast would compute a matrix product in bf16
    positive, negative = find_pairs(labels)
    near = scale * (similarity.detach() + margin).relu() * (similarity - margin)
    far = -scale * (1 + margin - similarity.detach()).relu() * (similarity - 1 + margin)
    counted = positive.any(dim=1) & negative.any(dim=1)
    both = _log_sum(near, negative) + _log_sum(far, positive)
    return F.softplus(both).masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


def _log_sum(values: Tensor, pairs: Tensor) -> Tensor:
    """(B,) the logarithm of the sum of exp(value) over the `pairs`; finite where an anchor has none."""
    lowest = -1e30  # not infinite: the gradient of nothing but infinities is no number
    return values.masked_fill(~pairs, lowest).logsumexp(dim=1)
