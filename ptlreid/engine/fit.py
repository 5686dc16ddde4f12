"""The training loop, in the open: it yields every step, and whoever runs it shows, saves and evaluates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from ptlreid.images import Batch
from ptlreid.models.network import Network
from ptlreid.outputs import Output
from ptlreid.views import standardize

Loss = Callable[[Output, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Step:
    """One update of the weights: which of the epoch, its loss, and the rate it was made with."""

    step: int
    loss: float
    lr: float
    images: int


def train_epoch(
    network: Network, batches: Iterable[Batch], labels: Tensor, loss: Loss, optimizer: Optimizer
) -> Iterator[Step]:
    """Train on each batch and yield its `Step`. Leaves the network in training mode.

    `labels`: (N,) on the network's device, the class of each row of the records. What a network remembers from
    batch to batch is the caller's to reset before.
    """
    network.train()
    for step, batch in enumerate(batches):
        images = standardize(batch.images.to(labels.device, non_blocking=True))
        terms = loss(network(images), labels[batch.rows.to(labels.device, non_blocking=True)])
        value = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        yield Step(step, value.item(), float(optimizer.param_groups[0]["lr"]), len(batch.rows))
