"""The training loop, in the open: it yields every update, and whoever runs it shows, saves and evaluates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ptlreid.engine.checkpoint import Training
from ptlreid.images import Batch
from ptlreid.network_types import Output
from ptlreid.views import standardize

# (what the network returned, the labels (B,), the images that it saw (B, 3, H, W)) to the terms, by name, whose sum is
# minimised.
Objective = Callable[[Output, Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Precision:
    """How numbers are kept in training. `dtype`: of the network's convolutions, None for float32."""

    dtype: torch.dtype | None = None
    channels_last: bool = False

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, dtype=self.dtype) if self.dtype else nullcontext()

    def arrange(self, images: Tensor) -> Tensor:
        """The images in the memory layout that the network has."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


@dataclass(frozen=True)
class Step:
    """One update of the weights.

    `step`: which of the epoch, from 0. `terms`: what was minimised, by name; scalars where the network is, not waited
    for. `lr`: the first group's. `images`: seen by this process. `seconds`: since the update before; `waited`: of
    these, for images.
    """

    step: int
    terms: dict[str, Tensor]
    lr: float
    images: int
    seconds: float
    waited: float


def train_epoch(
    training: Training,
    batches: Iterable[Batch],
    labels: Tensor,
    objective: Objective,
    *,
    forward: nn.Module | None = None,
    numerics: Precision = Precision(),
    accumulate: int = 1,
) -> Iterator[Step]:
    """Train on the batches and yield each `Step`, numbered from `training.step`, which counts on before it is yielded.

    `labels`: (N,) on the network's device, the class of each row of the records. `forward`: the network as it is
    called, such as wrapped for several processes. `accumulate`: batches to an update, whose mean gradient it takes;
    batches that do not fill an update are left. What a network remembers from batch to batch is the caller's to reset
    before. Leaves the network in training mode.
    """
    forward = training.network if forward is None else forward
    forward.train()
    source, before = iter(batches), perf_counter()
    while True:
        lr = float(training.optimizer.param_groups[0]["lr"])
        totals: dict[str, Tensor] = {}
        images = 0
        waited = 0.0
        training.optimizer.zero_grad(set_to_none=True)
        for number in range(1, accumulate + 1):
            asked = perf_counter()
            batch = next(source, None)
            waited += perf_counter() - asked
            if batch is None:
                training.optimizer.zero_grad(set_to_none=True)
                return
            with _together_only(forward, last=number == accumulate):
                terms = _backward(training, forward, batch, labels, objective, numerics=numerics, parts=accumulate)
            totals = {name: totals.get(name, 0) + value for name, value in terms.items()}
            images += len(batch.rows)
        _update(training)
        now = perf_counter()
        step = Step(training.step, totals, lr, images, now - before, waited)
        training.step += 1
        yield step
        before = now


def _backward(
    training: Training,
    forward: nn.Module,
    batch: Batch,
    labels: Tensor,
    objective: Objective,
    *,
    numerics: Precision,
    parts: int,
) -> dict[str, Tensor]:
    """Adds this batch's part of an update's gradient; returns its part of each term."""
    device = labels.device
    images = numerics.arrange(standardize(batch.images.to(device, non_blocking=True)))
    with numerics.autocast(device):
        terms = objective(forward(images), labels[batch.rows.to(device, non_blocking=True)], images)
    terms = {name: value.float() / parts for name, value in terms.items()}
    training.scaler.scale(torch.stack(list(terms.values())).sum()).backward()
    return {name: value.detach() for name, value in terms.items()}


def _update(training: Training) -> None:
    scaler = training.scaler
    scale = scaler.get_scale() if scaler.is_enabled() else 1.0
    scaler.step(training.optimizer)
    scaler.update()
    # fp16 leaves out an update whose gradients overflowed, and halves its scale: the schedule waits with it.
    if not scaler.is_enabled() or scaler.get_scale() >= scale:
        training.schedule.step()


def _together_only(forward: nn.Module, *, last: bool) -> AbstractContextManager[object]:
    """Several processes exchange gradients once an update, with its last batch."""
    return forward.no_sync() if isinstance(forward, DistributedDataParallel) and not last else nullcontext()
