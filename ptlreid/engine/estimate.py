"""The estimate of a dry run of `ptlreid finetune` or `distill`: memory and duration of training, without training."""

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
from torch import nn
from torch.optim import Optimizer

from ptlreid import distributed
from ptlreid.cores import available_cores
from ptlreid.devices import choose_device, fixed_sizes, float32_arithmetic
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.epochs import build_objective
from ptlreid.engine.fit import Objective, Precision, train_epoch
from ptlreid.engine.footprint import Autocast, Footprint
from ptlreid.engine.generators import fork_generators
from ptlreid.engine.job import TrainingJob
from ptlreid.engine.training_run import choose_precision, prepare_training
from ptlreid.images import Batch
from ptlreid.models.bconv import memory_state, reset_memory
from ptlreid.retrieval.memory_plan import free_memory_bytes
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings

_SECONDS = 10.0  # for timed updates, in addition to building the network
_SMALLEST_BATCH = 2  # images of the first timed updates: the fewest that batch norm accepts


def estimate_training(job: TrainingJob) -> dict[str, Any]:
    """The cost of a training run, for JSON.

    `steps`: weight updates in total. `processes`: that train together. `memory_bytes`:
    see `estimate_bytes`; `free` is the free memory of the device. `time`: see `estimate_time`; None if an update does
    not fit into `free`. `not_counted`: what memory and time leave out.
    """
    settings, train = job.settings, job.splits.train
    device = choose_device(settings.device)
    precision = choose_precision(settings, device)
    memory_bytes = {**estimate_bytes(job, precision), "free": _free_bytes(device)}
    return {
        "run": str(job.run.path),
        "settings": settings.model_dump(by_alias=True),
        "train": {"images": len(train), "identities": train.num_identities},
        "steps": settings.epochs * job.updates,
        "processes": distributed.world_size(),
        "memory_bytes": memory_bytes,
        "time": estimate_time(job, device, precision) if memory_bytes["peak"] < memory_bytes["free"] else None,
        "not_counted": _list_uncounted(settings, device),
    }


def _list_uncounted(settings: FinetuneSettings, device: torch.device) -> list[str]:
    """What memory and time leave out."""
    return [
        "loading of images, evaluation",
        *(["memory of CUDA and cuDNN themselves"] if device.type == "cuda" else []),
        *(["exchange of gradients between processes"] if distributed.world_size() > 1 else []),
        *(
            ["--compile: memory and time are those without it, and its first update takes minutes"]
            if settings.compile
            else []
        ),
    ]


def estimate_bytes(job: TrainingJob, precision: Precision) -> dict[str, int]:
    """Bytes of tensors in each process, from two updates of the real loop on `meta` tensors.

    `weights`: with batch norm's statistics. `averaged`: their moving average, if any. `gradients`, `optimizer`: of the
    weights. `teacher`: the weights of the frozen network that the objective runs, if any. `buckets`: the copy of the
    gradients that several processes exchange. `states`: carried between batches, latent ones and those of losses.
    `activations`: kept from the forward pass for the backward pass. `peak`: the maximum; less than the sum, as
    gradients are allocated while activations are freed.
    """
    accumulate = min(job.settings.accumulate, 2)  # more make no difference: the second adds to existing gradients
    loop = Precision(None, precision.channels_last)
    import torch._dynamo  # up to torch 2.7 at least, its import reads tensor contents, which fails under meta

    with torch.device("meta"):
        training = _prepare_training(job, torch.device("meta"), loop)
    # Adam counts steps in a tensor that older torch reads: the optimiser must not create it on meta.
    with ExitStack() as modes:
        weights = _list_tensors(training.network)
        averaged = _list_tensors(training.average.network) if training.average else []
        gradients = sum(tensor.nbytes for tensor in training.network.parameters())
        if precision.dtype:
            modes.enter_context(Autocast(precision.dtype))
        footprint = modes.enter_context(Footprint([*weights, *averaged]))
        before = footprint.live
        objective = build_objective(job, training, torch.device("meta"))
        teacher = footprint.live - before
        after_forward: list[int] = []
        before_step: list[int] = []
        training.network.register_forward_hook(lambda *_: after_forward.append(footprint.live))
        # On meta torch steps tensor by tensor, with temporaries; the real, fused step has none.
        training.optimizer.register_step_pre_hook(lambda *_: before_step.append(footprint.peak))
        size = job.images_per_process
        updates = _run_updates(job, training, objective, loop, size, accumulate=accumulate, count=2)
        next(updates)
        footprint.peak = footprint.live
        live_between = footprint.live - gradients  # gradients are freed at the start of the next update
        next(updates)
    buckets = gradients if distributed.world_size() > 1 else 0
    return {
        "weights": sum(tensor.nbytes for tensor in weights),
        "averaged": sum(tensor.nbytes for tensor in averaged),
        "gradients": gradients,
        "optimizer": _optimizer_bytes(training.optimizer),
        "teacher": teacher,
        "buckets": buckets,
        "states": sum(state.nbytes for state in [*memory_state(training.network).values(), *training.extra.values()]),
        "activations": after_forward[accumulate] - live_between,
        "peak": before_step[-1] + buckets,
    }


def _list_tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


def _optimizer_bytes(optimizer: Optimizer) -> int:
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def estimate_time(job: TrainingJob, device: torch.device, precision: Precision) -> dict[str, Any]:
    """The approximate duration of training, from a few real updates on random images.

    `timed_batch_size`: images per timed update, fewer than a batch if that would take too long; `seconds_per_batch` is
    then scaled up. `images_per_second`: of all processes. `hours`: for all epochs. `load_average`: of the machine
    before, in the last minute; a load near `cores` or above slows the updates down. None where the system does not say.
    """
    began = time.perf_counter()
    load_average = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    size = job.images_per_process
    job.progress.note(f"timing a few updates on {device}: about {_SECONDS:.0f} seconds")
    training = _prepare_training(job, device, precision)
    objective = build_objective(job, training, device)

    # The generators are for dropout.
    with fork_generators(device), fixed_sizes(device), float32_arithmetic(tf32=precision.tf32):
        smallest = min(_SMALLEST_BATCH, size)
        seconds_per_image = _time_update(job, training, objective, precision, smallest, count=1) / smallest
        seconds_left = max(0.0, _SECONDS - (time.perf_counter() - began))
        timed_size = max(smallest, min(size, int(seconds_left / (3 * seconds_per_image))))
        if timed_size > smallest:
            seconds_per_image = _time_update(job, training, objective, precision, timed_size, count=2) / timed_size
    total_seconds = seconds_per_image * size * len(job.sampler) * job.settings.epochs
    return {
        "device": str(device),
        "timed_batch_size": timed_size,
        "seconds_per_batch": round(seconds_per_image * size, 4),
        "images_per_second": round(distributed.world_size() / seconds_per_image, 1),
        "hours": round(total_seconds / 3600, 3),
        "load_average": load_average,
        "cores": available_cores(),
    }


def _time_update(
    job: TrainingJob, training: Training, objective: Objective, precision: Precision, size: int, *, count: int
) -> float:
    """The median seconds of `count` updates on `size` images each, after one that is not counted."""
    reset_memory(training.network)
    previous = time.perf_counter()
    seconds = []
    for _ in _run_updates(job, training, objective, precision, size, accumulate=1, count=count + 1):
        now = time.perf_counter()
        seconds.append(now - previous)
        previous = now
    return median(seconds[1:])  # the first is slower: it allocates memory and selects kernels


def _prepare_training(job: TrainingJob, device: torch.device, precision: Precision) -> Training:
    """The state before the first update, with random weights: a run below the null device has no checkpoint."""
    settings = job.settings.model_copy(update={"init": "none"})
    return prepare_training(replace(job, settings=settings, run=RunFolder(Path(os.devnull) / "run")), device, precision)


def _run_updates(
    job: TrainingJob,
    training: Training,
    objective: Objective,
    precision: Precision,
    size: int,
    *,
    accumulate: int,
    count: int,
) -> Iterator[None]:
    """Run `count` updates of the training loop on batches of `size` random images; yields after each."""
    device = next(training.network.parameters()).device
    shape = (size, job.spec.height, job.spec.width, 3)
    if device.type == "meta":
        images = torch.zeros(1, dtype=torch.uint8).expand(shape)  # of any size, in one byte
    else:
        images = torch.from_numpy(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))
    batch = Batch(images, torch.from_numpy(np.arange(size)))
    labels = torch.arange(size, device=device) % job.spec.num_classes
    steps = train_epoch(
        training,
        [batch] * count * accumulate,
        labels,
        objective,
        precision=precision,
        accumulate=accumulate,
        clip_grad=job.settings.clip_grad,
    )
    for step in steps:
        if device.type != "meta":
            torch.stack(list(step.terms.values())).tolist()  # reading the result waits for a GPU
        yield


def _free_bytes(device: torch.device) -> int:
    """The free memory in bytes: of the GPU, or of this machine."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()
