"""Cross-entropy and batch-hard triplet loss together, as MGN combines them (Wang et al. 2018, section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptlreid.losses import ce, triplet

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output

NEEDS_POSITIVES = True


class Settings(ce.Settings, triplet.Settings):
    """Settings of both losses."""


def loss(output: Output, labels: Tensor, *, label_smoothing: float, margin: float) -> dict[str, Tensor]:
    """`ce`, the mean over heads, and `triplet`, the mean over the vectors of `output.metric`; both have weight 1."""
    return ce.loss(output, labels, label_smoothing=label_smoothing) | triplet.loss(output, labels, margin=margin)
