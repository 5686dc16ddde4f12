"""One training run, from its initialisation or its checkpoint to the end of its last epoch."""

from __future__ import annotations

from pathlib import Path

import torch

from ptlreid import distributed, environment, models
from ptlreid.devices import choose_amp, choose_device, fixed_sizes, float32_arithmetic
from ptlreid.engine import checkpoint, optim, schedule
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.epochs import ScoreEpoch, train_epochs
from ptlreid.engine.fit import Precision
from ptlreid.engine.job import TrainingJob, note_other_parts
from ptlreid.errors import OptionError
from ptlreid.images import catch_dead_workers
from ptlreid.models import pretrained
from ptlreid.models.average import Average
from ptlreid.models.network import Network
from ptlreid.runs import find_run
from ptlreid.settings import FinetuneSettings


def train(job: TrainingJob, score_epoch: ScoreEpoch) -> Training:
    """The training state after the last epoch; resumes from a checkpoint in the run folder.

    With several joined processes, each calls this and the main one writes. Raises `Stopped` after a signal.
    """
    settings = job.settings
    device = choose_device(settings.device)
    _check_sync_bn(settings, device)
    precision = choose_precision(settings, device)
    training = prepare_training(job, device, precision)
    images = settings.batch_size * settings.accumulate
    facts = environment.describe_machine(device, amp=settings.amp, images_per_update=images)
    environment.begin_session(training.sessions, facts, updates=training.epoch * job.updates + training.step)
    distributed.run_on_main(lambda: job.run.claim(settings, job.splits, job.depends))
    with catch_dead_workers(), fixed_sizes(device), float32_arithmetic(tf32=precision.tf32):
        train_epochs(job, training, device, precision, score_epoch=score_epoch)
    return training


def choose_precision(settings: FinetuneSettings, device: torch.device) -> Precision:
    """The precision of the settings; `OptionError` if it is unfit for `device`."""
    return Precision(choose_amp(settings.amp, device), bool(settings.channels_last), tf32=settings.amp == "tf32")


def prepare_training(job: TrainingJob, device: torch.device, precision: Precision) -> Training:
    """The training state before the first update, or that of the run's checkpoint."""
    settings = job.settings
    network = models.build(job.spec, settings.seed)
    resume = job.run.checkpoint.is_file()
    if not resume:
        _initialise(network, job)
    network.to(device)
    if precision.channels_last:
        network.to(memory_format=torch.channels_last)
    training = _build_training(network, job, device, precision)
    if resume:
        checkpoint.load(training, job.run.checkpoint)
        updates = f" and {training.step} of {job.updates} updates" if training.step else ""
        job.progress.note(f"{job.run.path}: resuming after epoch {training.epoch}{updates}")
        note_other_parts(job.run, settings, training.sessions, job.progress)
    return training


def _check_sync_bn(settings: FinetuneSettings, device: torch.device) -> None:
    """Raise `OptionError` where torch cannot exchange the statistics of batch norm."""
    if settings.sync_bn and distributed.world_size() > 1 and device.type != "cuda":
        raise OptionError(
            f"sync_bn = true with {distributed.world_size()} processes on {device.type}: expected CUDA, which torch's "
            "SyncBatchNorm needs. Train on GPUs, with one process, or without --sync-bn."
        )


def _build_training(network: Network, job: TrainingJob, device: torch.device, precision: Precision) -> Training:
    """The network with its optimiser, schedule, gradient scaler and, with `ema_decay`, the average of its weights."""
    settings = job.settings
    optimizer = optim.build_optimizer(
        settings.optimizer,
        network,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        amsgrad=settings.amsgrad,
        new_lr_factor=settings.new_lr_factor,
        layer_decay=settings.layer_decay,
    )
    rates = schedule.build_schedule(
        optimizer,
        kind=settings.schedule,
        updates_per_epoch=job.updates,
        epochs=settings.epochs,
        warmup_epochs=settings.warmup_epochs,
        decay_every=settings.decay_every,
        decay_at=settings.decay_at,
        decay_factor=settings.decay_factor,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision.dtype is torch.float16)
    average = Average(network, decay=settings.ema_decay) if settings.ema_decay else None
    return Training(network, optimizer, rates, scaler, average=average)


def _initialise(network: Network, job: TrainingJob) -> None:
    """Load the weights that `init` names, if any."""
    init, backbone = job.settings.init, job.settings.backbone
    if init == "none":
        return
    if init == "imagenet":
        report = pretrained.load_imagenet(network, backbone)
    elif Path(init).is_file():
        report = pretrained.load_file(network, Path(init), backbone)
    else:
        source = find_run(job.run.path.parent, init)
        # Other identities are other classes: the classifier keeps its random initialisation entirely.
        skip = None if job.classes or source.has_same_identities(job.splits) else "classifier"
        report = pretrained.load_file(network, source.weights(), backbone, skip=skip)
    job.progress.note(f"initialised from {init}: {report}")
