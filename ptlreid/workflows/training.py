"""The training of one run, from its start or its checkpoint to weights and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ptlreid import distributed, models
from ptlreid.devices import choose_amp, choose_device
from ptlreid.engine import checkpoint, optim, schedule
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Precision
from ptlreid.images import catch_dead_workers
from ptlreid.models import weights
from ptlreid.models.network import Network
from ptlreid.runs import find_run
from ptlreid.workflows import scoring
from ptlreid.workflows.epochs import train_epochs
from ptlreid.workflows.training_job import TrainingJob


def train(job: TrainingJob) -> dict[str, Any]:
    """The metrics of the run, written last; a checkpoint in the run folder is continued.

    On several processes each calls this, joined; the main one writes. Raises `Stopped` when a signal asked for an end.
    """
    device = choose_device(job.config.device)
    numerics = Precision(choose_amp(job.config.amp, device), job.config.channels_last)
    training = begin(job, device, numerics)
    distributed.run_on_main(lambda: job.run.claim(job.config, job.splits, job.depends))
    with catch_dead_workers():
        train_epochs(job, training, device, numerics)
    distributed.run_on_main(lambda: weights.save(training.network, job.spec, job.run.weights()))
    return scoring.finish(job, training)


def begin(job: TrainingJob, device: torch.device, numerics: Precision) -> Training:
    """The training state at the start, or where the run's checkpoint left it."""
    config = job.config
    network = models.build(job.spec, config.seed)
    going_on = job.run.checkpoint.is_file()
    if not going_on:
        _initialise(network, job)
    network.to(device)
    if numerics.channels_last:
        network.to(memory_format=torch.channels_last)
    optimizer = optim.build_optimizer(
        config.optimizer,
        network,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
        new_lr_factor=config.new_lr_factor,
    )
    rates = schedule.build_schedule(
        optimizer,
        kind=config.schedule,
        updates_per_epoch=job.updates,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        decay_every=config.decay_every,
        decay_at=config.decay_at,
        decay_factor=config.decay_factor,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=numerics.dtype is torch.float16)
    training = Training(network, optimizer, rates, scaler)
    if going_on:
        checkpoint.load(training, job.run.checkpoint)
        within = f" and {training.step} of {job.updates} updates" if training.step else ""
        job.progress.note(f"{job.run.path}: continued after epoch {training.epoch}{within}")
    return training


def _initialise(network: Network, job: TrainingJob) -> None:
    init, backbone = job.config.init, job.config.backbone
    if init == "none":
        return
    if init == "imagenet":
        loaded = weights.load_imagenet(network, backbone)
    elif Path(init).is_file():
        loaded = weights.load_file(network, Path(init), backbone)
    else:
        before = find_run(job.run.path.parent, init)
        # The people of another dataset are other classes: the whole classifier is made anew for them.
        without = None if before.has_same_identities(job.splits) else "classifier"
        loaded = weights.load_file(network, before.weights(), backbone, without=without)
    job.progress.note(f"start from {init}: {loaded}")
