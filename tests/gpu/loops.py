"""One update of a network: in a loop such as torchreid's, in a bare loop, and in the project's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import inputs
import torch
from inputs import Size
from torch.nn import functional as F

from ptlreid import models
from ptlreid.devices import fixed_sizes
from ptlreid.engine.epochs import build_objective
from ptlreid.engine.job import TrainingJob
from ptlreid.views import standardize


def plain_loop(size: Size, backbone: str, ptl: bool, batch: int) -> Callable[[], float]:
    """A step as in torchreid: cross-entropy, SGD, float32 with TF32 as torch has it, the loss read after each update.

    The images are on the device already, which is to its advantage.
    """
    job = inputs.make_job(backbone, device=size.device, batch_size=batch, ptl=ptl)
    network = models.build(job.spec, seed=0).to(size.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = network(images).logits.values()
        return torch.stack([F.cross_entropy(one, labels) for one in logits]).mean()

    source = cycle(device_batches(job))

    def step() -> float:
        with fixed_sizes(torch.device(size.device)):  # torchreid sets it, too
            return update(loss_of, optimizer, *next(source)).item()

    return step


def bare_loop(
    size: Size, backbone: str, ptl: bool, batch: int, amp: str, channels_last: bool
) -> Callable[[], torch.Tensor]:
    """A step of the same work as the project's loop, and nothing else, from float32 images on the device."""
    job = inputs.make_job(backbone, device=size.device, batch_size=batch, ptl=ptl, amp=amp, channels_last=channels_last)
    state, precision, device = inputs.start(job), inputs.precision_of(job), torch.device(size.device)
    objective = build_objective(job, state, device)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with precision.autocast(device):
            return torch.stack(list(objective(state.network(images), labels, images).values())).sum()

    state.network.train()
    source = cycle([(precision.arrange(images), labels) for images, labels in device_batches(job)])

    def step() -> torch.Tensor:
        with inputs.arithmetic_of(job):
            return update(loss_of, state.optimizer, *next(source))

    return step


def device_batches(job: TrainingJob) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Standardised images with their labels, on the job's device."""
    labels = torch.from_numpy(job.splits.train.labels())
    device = job.settings.device
    return [
        (standardize(batch.images.to(device)), labels[batch.rows].to(device)) for batch in inputs.make_batches(job, 4)
    ]


def update(
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """The loss of one update."""
    optimizer.zero_grad()
    loss = loss_of(images, labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def our_loop(
    size: Size, backbone: str, ptl: bool, batch: int, amp: str, channels_last: bool, compiled: bool
) -> Callable[[], None]:
    """A step of the project's loop, from uint8 images in page-locked memory; losses are read ten at a time."""
    job = inputs.make_job(backbone, device=size.device, batch_size=batch, ptl=ptl, amp=amp, channels_last=channels_last)
    state = inputs.start(job)
    forward = None
    if compiled:
        forward = torch.compile(state.network, backend="inductor" if size.cuda else "eager")
    steps = inputs.updates(job, state, cycle(inputs.make_batches(job, 4)), forward)
    pending: list[torch.Tensor] = []

    def step() -> None:
        with inputs.arithmetic_of(job):
            pending.append(torch.stack(list(next(steps).values())))
        if len(pending) == 10:
            torch.stack(pending).tolist()
            pending.clear()

    return step
