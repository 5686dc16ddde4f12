"""Centre loss (Wen et al., ECCV 2016): pulls features towards the centre of their identity, which follows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from ptlreid.distributed import gather_batch

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output


class Settings(BaseModel):
    """Settings of the centre loss. The weight is that of Luo et al. (bag of tricks, 2019), the rate Wen et al.'s."""

    centre_weight: float = Field(5e-4, ge=0, le=1000, description="Weight of the centre loss.")
    centre_rate: float = Field(0.5, ge=0, le=1, description="Rate α at which centres follow the features.")


def new_state(output: Output, **_: object) -> dict[str, Tensor]:
    """(classes, width) zeros for each of `output.metric`: the centres, by its name. Where they begin is our choice."""
    import torch

    classes = next(iter(output.logits.values())).shape[1]
    return {name: torch.zeros(classes, part.shape[1], device=part.device) for name, part in output.metric.items()}


def loss(
    output: Output, labels: Tensor, state: dict[str, Tensor], *, centre_weight: float, centre_rate: float
) -> dict[str, Tensor]:
    """`centre`: weight / 2 times the mean squared distance of a feature to its centre, over `output.metric`, a scalar.

    `labels`: (B,) int64 in 0 .. classes - 1. Then each centre moves by rate · Σ (x - c) / (1 + n), over the n features
    x of its identity in the batch, which is that of all processes (Wen et al., Eq. 4). Feature (3, 0) and centre (1, 0)
    cost weight / 2 · 4, and with rate 0.5 the centre moves by 0.5 · 2 / (1 + 1) to (1.5, 0).
    """
    import torch

    labels = gather_batch(labels)
    terms = []
    for name, part in output.metric.items():
        apart = gather_batch(part).float() - state[name][labels]  # (B, width)
        terms.append(apart.square().sum(dim=1).mean())
        state[name] = state[name] + centre_rate * _moves(apart.detach(), labels, len(state[name]))
    return {"centre": centre_weight / 2 * torch.stack(terms).mean()}


def _moves(apart: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(classes, width): for each class the sum of its rows of `apart`, (B, width), over one more than their number."""
    import torch

    from ptlreid.devices import without_autocast

    members = (torch.arange(classes, device=labels.device)[:, None] == labels).float()  # (classes, B)
    # By a product: index_add on a GPU sums in another order in each process.
    with without_autocast(apart.device):
        return members @ apart / (1 + members.sum(dim=1, keepdim=True))
