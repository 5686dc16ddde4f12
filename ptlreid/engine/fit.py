"""The training loop: a generator of updates, whose caller reports, saves and evaluates."""

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

# (the network's output, labels (B,), standardised images (B, 3, H, W)) to the terms of the loss, by name: their sum is
# minimised. An objective that a job has itself, or the plan of an epoch, gets the rows of the training set as labels.
Objective = Callable[[Output, Tensor, Tensor], dict[str, Tensor]]

# (rows of the batch) to a context in which the network computes its output.
Context = Callable[[Tensor], AbstractContextManager[None]]


@dataclass(frozen=True)
class Precision:
    """Precision and memory layout in training. `dtype`: of the network's convolutions, None for float32.

    `tf32`: whether float32 is computed in TF32.
    """

    dtype: torch.dtype | None
    channels_last: bool
    tf32: bool = False

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, dtype=self.dtype) if self.dtype else nullcontext()

    def arrange(self, images: Tensor) -> Tensor:
        """The images in the network's layout."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


@dataclass(frozen=True)
class Step:
    """One update of the weights.

    `step`: its number in the epoch, from 0. `terms`: of the loss, by name; scalars on the network's device, not
    synchronised. `lr`: of the first parameter group. `images`: of this process. `seconds`: since the previous update;
    `waited`: the part of them spent waiting for images. `skipped`: whether fp16 overflowed, so that the weights stay.
    """

    step: int
    terms: dict[str, Tensor]
    lr: float
    images: int
    seconds: float
    waited: float
    skipped: bool = False


def train_epoch(
    training: Training,
    batches: Iterable[Batch],
    labels: Tensor,
    objective: Objective,
    *,
    forward: nn.Module | None = None,
    precision: Precision,
    accumulate: int,
    clip_grad: float,
    context: Context | None = None,
) -> Iterator[Step]:
    """Train on the batches and yield each `Step`, numbered from `training.step`, which is increased before the yield.

    `labels`: (N,) on the network's device, the class of each row of the records. `forward`: the wrapped network,
    for several processes for example. `context`: see `EpochPlan`. `accumulate`: batches per update, which uses their
    mean gradient; batches at the end that do not fill an update are dropped. `clip_grad`: the largest L2 norm of that
    gradient over all weights, longer ones are scaled to it; 0 for no limit. The caller resets latent states. Leaves the
    network in training mode.
    """
    forward = training.network if forward is None else forward
    forward.train()
    exchange = _find_exchange(forward)
    source, previous = iter(batches), perf_counter()
    while True:
        lr = float(training.optimizer.param_groups[0]["lr"])
        totals: dict[str, Tensor] = {}
        images = 0
        waited = 0.0
        training.optimizer.zero_grad(set_to_none=True)
        for number in range(1, accumulate + 1):
            wait_began = perf_counter()
            batch = next(source, None)
            waited += perf_counter() - wait_began
            if batch is None:
                training.optimizer.zero_grad(set_to_none=True)
                return
            with _sync_only(exchange, last=number == accumulate):
                around = nullcontext() if context is None else context(batch.rows)
                with around:
                    terms = _forward(forward, batch, labels, objective, precision=precision, parts=accumulate)
                training.scaler.scale(torch.stack(list(terms.values())).sum()).backward()
            totals = {name: totals.get(name, 0) + value.detach() for name, value in terms.items()}
            images += len(batch.rows)
        skipped = not _update(training, clip_grad)
        now = perf_counter()
        step = Step(training.step, totals, lr, images, now - previous, waited, skipped)
        training.step += 1
        yield step
        previous = now


def _forward(
    forward: nn.Module,
    batch: Batch,
    labels: Tensor,
    objective: Objective,
    *,
    precision: Precision,
    parts: int,
) -> dict[str, Tensor]:
    """This batch's share of each term of the loss of an update."""
    device = labels.device
    images = precision.arrange(standardize(batch.images.to(device, non_blocking=True)))
    with precision.autocast(device):
        terms = objective(forward(images), labels[batch.rows.to(device, non_blocking=True)], images)
    return {name: value.float() / parts for name, value in terms.items()}


def _update(training: Training, clip_grad: float) -> bool:
    """Whether the weights were changed."""
    scaler = training.scaler
    scale = scaler.get_scale() if scaler.is_enabled() else 1.0
    if clip_grad:
        scaler.unscale_(training.optimizer)
        nn.utils.clip_grad_norm_(training.network.parameters(), clip_grad)
    scaler.step(training.optimizer)
    scaler.update()
    # fp16 skips an update whose gradients overflow, and halves its scale: schedule and average skip it too.
    if scaler.is_enabled() and scaler.get_scale() < scale:
        return False
    training.schedule.step()
    if training.average:
        training.average.update_parameters(training.network)
    return True


def _find_exchange(forward: nn.Module) -> DistributedDataParallel | None:
    """What exchanges gradients, if anything: `forward` itself, or inside it, as torch.compile wraps it again."""
    return next((part for part in forward.modules() if isinstance(part, DistributedDataParallel)), None)


def _sync_only(exchange: DistributedDataParallel | None, *, last: bool) -> AbstractContextManager[object]:
    """A context in which several processes exchange gradients with the last batch of an update only."""
    return nullcontext() if exchange is None or last else exchange.no_sync()
