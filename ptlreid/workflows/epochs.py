"""The epochs of a run: updates, checkpoints, evaluations, and an end in good order when a signal asks for one."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ptlreid import distributed, losses
from ptlreid.devices import choose_workers
from ptlreid.engine import checkpoint, optim
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Objective, Precision, train_epoch
from ptlreid.engine.history import History
from ptlreid.engine.interrupts import Interrupts
from ptlreid.engine.recorder import Recorder
from ptlreid.errors import Stopped
from ptlreid.images import load_batches
from ptlreid.models import bconv
from ptlreid.settings import FinetuneSettings
from ptlreid.views import TrainView
from ptlreid.workflows import scoring
from ptlreid.workflows.training_job import TrainingJob


@dataclass(frozen=True)
class _Machine:
    """How an update is computed and told of."""

    device: torch.device
    numerics: Precision
    objective: Objective
    recorder: Recorder


def train_epochs(job: TrainingJob, training: Training, device: torch.device, numerics: Precision) -> None:
    """Train what is left of the run's epochs; each ends in a checkpoint.

    Ends sooner when `patience` evaluations in a row found nothing better. Raises `Stopped` when a signal asked for an
    end, after a checkpoint.
    """
    config, run = job.config, job.run
    objective = job.objective(device) if job.objective else loss_objective(config)
    main = distributed.is_main()
    with (
        History(run.history if main else None, keep=training.history_bytes) as history,
        job.progress.task(f"train {run.path.name}", config.epochs * job.updates) as advance,
        Recorder(
            history,
            advance,
            run,
            device,
            epochs=config.epochs,
            updates=job.updates,
            tensorboard=config.tensorboard and main,
        ) as recorder,
        torch.random.fork_rng(),  # what dropout draws is ours, and the caller's generator stays as it was
    ):
        forward = None
        machine = _Machine(device, numerics, objective, recorder)
        while training.epoch < config.epochs and not _hopeless(job, training):
            if forward is None or training.epoch == config.freeze_epochs:
                forward = _forward(job, training)
            _updates(job, training, forward, machine)
            # The checkpoint before an evaluation, which may take long: a kill meanwhile repeats no update.
            scores = scoring.in_training(job, training, device, before=lambda: _save(job, training, recorder))
            training.epoch, training.step = training.epoch + 1, 0
            recorder.epoch(training.epoch, scores | ({"cells": training.cells} if training.cells else {}))
            _save(job, training, recorder)


def _updates(job: TrainingJob, training: Training, forward: nn.Module, machine: _Machine) -> None:
    """The updates left of the epoch, with a checkpoint every few minutes and where a signal asks for an end."""
    config, recorder = job.config, machine.recorder
    _begin_epoch(job, training)
    rows = job.sampler.epoch(training.epoch)[training.step * config.accumulate : job.updates * config.accumulate]
    batches = load_batches(
        job.splits.train.paths,
        TrainView(job.spec.height, job.spec.width, config.flip, config.pad, config.erase),
        rows,
        seed=(config.seed, training.epoch),
        workers=choose_workers(config.workers, machine.device),
        progress=job.progress if training.step + training.epoch == 0 else None,  # what it has to say, once
    )
    steps = train_epoch(
        training,
        batches,
        torch.from_numpy(job.splits.train.labels()).to(machine.device),
        machine.objective,
        forward=forward,
        numerics=machine.numerics,
        accumulate=config.accumulate,
    )
    saved = time.monotonic()
    with Interrupts() as interrupts:
        _watch_cells(job, training)
        for step in steps:
            recorder.step(training.epoch, step)
            if training.step == job.updates:
                training.cells = bconv.cell_statistics(training.network)
            _watch_cells(job, training)
            due = distributed.is_main() and time.monotonic() - saved >= 60 * config.checkpoint_minutes
            # All processes stop and save after the same update, or none does.
            stop, save = distributed.any_process([interrupts.received is not None, due])
            if stop or save:
                _save(job, training, recorder)
                saved = time.monotonic()
            if stop:
                raise _stopped(job, training, interrupts.received or signal.SIGTERM)


def _begin_epoch(job: TrainingJob, training: Training) -> None:
    """The latent states and generators that the next update begins with."""
    if training.step:
        checkpoint.restore_generators(training)
        return
    bconv.reset_memory(training.network)
    seed = (job.config.seed, training.epoch, distributed.rank())
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))


def _watch_cells(job: TrainingJob, training: Training) -> None:
    """Have the cells keep what they are like where the next update is the epoch's last."""
    bconv.watch_cells(training.network, training.step + 1 == job.updates)


def _forward(job: TrainingJob, training: Training) -> nn.Module:
    """The network as it is called, for the epochs in which the same weights are trained.

    Wrapped where several processes train, and compiled where asked.
    """
    config = job.config
    optim.freeze(training.network, training.epoch < config.freeze_epochs)
    forward: nn.Module = training.network
    if distributed.active():
        # Without cross-entropy the classifier has no gradient, and the others would wait for it.
        forward = DistributedDataParallel(forward, find_unused_parameters=config.loss == "triplet")
    return torch.compile(forward) if config.compile else forward  # type: ignore[return-value]


def loss_objective(config: FinetuneSettings) -> Objective:
    """The loss that `config` names, with its settings."""
    loss = losses.find(config.loss, config.model_dump())
    return lambda output, labels, images: loss(output, labels)


def _hopeless(job: TrainingJob, training: Training) -> bool:
    patience = job.config.patience
    if not patience or training.stale < patience:
        return False
    job.progress.note(f"stopped after epoch {training.epoch}: {training.stale} evaluations without a better mAP")
    return True


def _save(job: TrainingJob, training: Training, recorder: Recorder) -> None:
    training.history_bytes = recorder.flush()
    checkpoint.save(training, job.run.checkpoint)


def _stopped(job: TrainingJob, training: Training, number: int) -> Stopped:
    return Stopped(
        f"{signal.Signals(number).name}: stopped after update {training.step} of {job.updates} in epoch "
        f"{training.epoch + 1} of {job.config.epochs}; {job.run.checkpoint} is written.",
        128 + number,
    )
