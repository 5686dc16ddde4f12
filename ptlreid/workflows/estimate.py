"""`ptlreid finetune --dry-run`: what would be trained, how much memory it takes and about how long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ptlreid.devices import choose_amp, choose_device
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Precision, train_epoch
from ptlreid.engine.footprint import Autocast, Footprint
from ptlreid.images import Batch
from ptlreid.models.bconv import memory_state, reset_memory
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.retrieval.memory_plan import free_memory_bytes
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.workflows.epochs import loss_objective
from ptlreid.workflows.finetune import build_sampler
from ptlreid.workflows.training import begin
from ptlreid.workflows.training_job import TrainingJob

_SECONDS = 10.0  # for timing steps, beside building the network
_SMALL = 2  # images of the first timed steps: the fewest that batch norm takes


def plan(config: FinetuneSettings, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """What training with `config` comes to, for JSON. `config` has an image size.

    `steps`: updates of the weights in all. `memory_bytes`: see `memory`; `free` is what the device has left. `time`:
    see `timing`; None where a step does not fit into `free`.
    """
    job = TrainingJob(config, splits, build_sampler(config, splits), run, progress)
    device = choose_device(config.device)
    numerics = Precision(choose_amp(config.amp, device), config.channels_last)
    needed = memory(job, numerics)
    free = _free(device)
    return {
        "run": str(run.path),
        "settings": config.model_dump(),
        "train": {"images": len(splits.train), "identities": splits.train.num_identities},
        "steps": config.epochs * job.updates,
        "memory_bytes": {**needed, "free": free},
        "time": timing(job, device, numerics) if needed["peak"] < free else None,
    }


def memory(job: TrainingJob, numerics: Precision) -> dict[str, int]:
    """Bytes of tensors in training, from two updates of the real loop on tensors without content.

    `weights`: with batch norm's statistics. `gradients`, `optimizer`: of these. `states`: what cells carry between
    batches. `activations`: what a batch leaves for the way back. `peak`: the most at once; less than their sum, as
    gradients come while activations go. What CUDA and cuDNN take for themselves comes on top.
    """
    config = job.config
    accumulate = min(config.accumulate, 2)  # more change nothing: the second finds the gradients of the first
    loop = Precision(channels_last=numerics.channels_last)
    import torch._dynamo  # torch up to 2.7 at least reads tensors as it loads this, which meta has none of

    with torch.device("meta"):
        training = _begin(job, torch.device("meta"), loop)
    # Adam counts steps in a tensor that older torch reads: it must not be a meta one.
    with ExitStack() as modes:
        weights = [*training.network.parameters(), *training.network.buffers()]
        gradients = sum(tensor.nbytes for tensor in training.network.parameters())
        if numerics.dtype:
            modes.enter_context(Autocast(numerics.dtype))
        footprint = modes.enter_context(Footprint(weights))
        after_forward: list[int] = []
        before_step: list[int] = []
        training.network.register_forward_hook(lambda *_: after_forward.append(footprint.live))
        # Without content torch steps one tensor after another, with temporaries; its real steps, fused, have none.
        training.optimizer.register_step_pre_hook(lambda *_: before_step.append(footprint.peak))
        updates = _updates(job, training, loop, config.batch_size, accumulate=accumulate, count=2)
        next(updates)
        footprint.peak = footprint.live
        between = footprint.live - gradients  # which the next update drops before it begins
        next(updates)
    return {
        "weights": sum(tensor.nbytes for tensor in weights),
        "gradients": gradients,
        "optimizer": sum(
            value.nbytes
            for state in training.optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        ),
        "states": sum(state.nbytes for state in memory_state(training.network).values()),
        "activations": after_forward[accumulate] - between,
        "peak": before_step[-1],
    }


def timing(job: TrainingJob, device: torch.device, numerics: Precision) -> dict[str, Any]:
    """About how long training takes, from a few real steps on random images: no reading and no evaluation in it.

    `timed_batch_size`: images of the timed steps, fewer than a batch has where that would take too long: then
    `seconds_per_batch` is in proportion. `hours`: of all epochs.
    """
    began = time.perf_counter()
    size = job.config.batch_size
    job.progress.note(f"timing a few steps on {device}: some {_SECONDS:.0f} seconds")
    training = _begin(job, device, numerics)

    def seconds(size: int, count: int) -> float:
        reset_memory(training.network)
        before = time.perf_counter()
        took = []
        for _ in _updates(job, training, numerics, size, count=count + 1):
            now = time.perf_counter()
            took.append(now - before)
            before = now
        return median(took[1:])  # the first is slower: memory is found and kernels are chosen

    with torch.random.fork_rng():  # what dropout draws
        small = min(_SMALL, size)
        each = seconds(small, 1) / small
        left = max(0.0, _SECONDS - (time.perf_counter() - began))
        timed = max(small, min(size, int(left / (3 * each))))
        if timed > small:
            each = seconds(timed, 2) / timed
    total = each * size * len(job.sampler) * job.config.epochs
    return {
        "device": str(device),
        "timed_batch_size": timed,
        "seconds_per_batch": round(each * size, 4),
        "images_per_second": round(1 / each, 1),
        "hours": round(total / 3600, 3),
    }


def _begin(job: TrainingJob, device: torch.device, numerics: Precision) -> Training:
    """The start of training, from any weights and from no checkpoint: no folder lies in the null device."""
    config = job.config.model_copy(update={"init": "none"})
    return begin(replace(job, config=config, run=RunFolder(Path(os.devnull) / "run")), device, numerics)


def _updates(
    job: TrainingJob, training: Training, numerics: Precision, size: int, *, accumulate: int = 1, count: int
) -> Iterator[None]:
    """`count` updates of the training loop on batches of `size` random images; each is done when it is yielded."""
    device = next(training.network.parameters()).device
    shape = (size, job.spec.height, job.spec.width, 3)
    images = torch.from_numpy(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))
    batch = Batch(images, torch.from_numpy(np.arange(size)))
    labels = torch.arange(size, device=device) % job.spec.num_classes
    steps = train_epoch(
        training,
        [batch] * count * accumulate,
        labels,
        loss_objective(job.config),
        numerics=numerics,
        accumulate=accumulate,
    )
    for step in steps:
        if device.type != "meta":
            torch.stack(list(step.terms.values())).tolist()  # a GPU is done only when its result is read
        yield


def _free(device: torch.device) -> int:
    """Bytes that training may take: of the GPU's memory, or of this machine's."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()
