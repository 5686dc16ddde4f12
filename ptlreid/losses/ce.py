"""Cross-entropy between each head's class scores and the identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output


class Settings(BaseModel):
    """Settings of cross-entropy."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each label spread over all classes.")


def loss(output: Output, labels: Tensor, *, label_smoothing: float) -> dict[str, Tensor]:
    """`ce`: the mean over heads and images, a scalar. `labels`: (B,) int64 in 0 .. classes - 1.

    Two classes with equal scores give ln 2 = 0.693. `label_smoothing` spreads that share of each label evenly over all
    classes (Szegedy et al., CVPR 2016).
    """
    import torch
    from torch.nn import functional as F

    heads = [F.cross_entropy(head, labels, label_smoothing=label_smoothing) for head in output.logits.values()]
    return {"ce": torch.stack(heads).mean()}
