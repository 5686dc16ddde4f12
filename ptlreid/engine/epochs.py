"""The epochs of a run: updates, checkpoints, evaluations, and a clean stop after a signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ptlreid import distributed, losses
from ptlreid.devices import choose_workers
from ptlreid.engine import checkpoint, optim
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Context, Objective, Precision, Step, train_epoch
from ptlreid.engine.generators import fork_generators, seed_generators
from ptlreid.engine.history import History
from ptlreid.engine.interrupts import Interrupts
from ptlreid.engine.job import TrainingJob
from ptlreid.engine.recorder import Recorder
from ptlreid.environment import count_update
from ptlreid.errors import Stopped
from ptlreid.images import Batch, load_seeded
from ptlreid.models import bconv
from ptlreid.views import TrainView


class ScoreEpoch(Protocol):
    """Returns the scores after the epoch that was just trained, by name; empty if it is not evaluated.

    Calls `before()` before an evaluation, and updates `best` and `stale` of the training state after it.
    """

    def __call__(self, job: TrainingJob, training: Training, *, before: Callable[[], None]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class _Setup:
    """How an update is computed and recorded. `batches`: the remaining ones of the run, or of a planned epoch.

    `labels`: of each row of the training set, on the device, as the objective takes them. `context`, `after_update`:
    see `EpochPlan`.
    """

    device: torch.device
    precision: Precision
    objective: Objective
    recorder: Recorder
    batches: Iterator[Batch]
    labels: Tensor
    context: Context | None
    after_update: Callable[[Step], None]


def train_epochs(
    job: TrainingJob, training: Training, device: torch.device, precision: Precision, *, score_epoch: ScoreEpoch
) -> None:
    """Train the remaining epochs of the run, with a checkpoint after each.

    Stops early after `patience` evaluations without a better mAP, or where there is no plan for an epoch. After a
    signal, writes a checkpoint and raises `Stopped`.
    """
    settings, run = job.settings, job.run
    _note_patience(job)
    objective = build_objective(job, training, device)
    main = distributed.is_main()
    with (
        History(run.history if main else None, keep=training.history_bytes) as history,
        job.progress.task(f"train {run.path.name}", settings.epochs * job.updates) as advance,
        Recorder(
            history,
            advance,
            run,
            device,
            epochs=settings.epochs,
            updates=job.updates,
            tensorboard=settings.tensorboard and main,
        ) as recorder,
        closing(_load_batches(job, training, device, _seeded_rows(job, training.epoch, training.step))) as batches,
        fork_generators(device),  # dropout uses our own states: the caller's are left alone
    ):
        forward = None
        labels = torch.from_numpy(_objective_labels(job)).to(device)
        setup = _Setup(
            device, precision, objective, recorder, batches, labels, context=None, after_update=lambda _: None
        )
        while training.epoch < settings.epochs and not _out_of_patience(job, training):
            if forward is None or training.epoch == settings.freeze_epochs:
                forward = _wrap_network(job, training)
            with _planned(job, training, setup) as planned:
                if planned is None:
                    break
                _train_one_epoch(job, training, forward, planned)
            # A checkpoint before the evaluation, which may take long: if killed during it, the run repeats no update.
            scores = score_epoch(job, training, before=lambda: _save(job, training, recorder))
            training.epoch, training.step = training.epoch + 1, 0
            recorder.epoch(training.epoch, scores | ({"cells": training.cells} if training.cells else {}))
            _save(job, training, recorder)


def _train_one_epoch(job: TrainingJob, training: Training, forward: nn.Module, setup: _Setup) -> None:
    """The remaining updates of the epoch, with a checkpoint every few minutes and after a signal."""
    _start_epoch(job, training, setup.device)
    steps = train_epoch(
        training,
        islice(setup.batches, (job.updates - training.step) * job.settings.accumulate),
        setup.labels,
        setup.objective,
        forward=forward,
        precision=setup.precision,
        accumulate=job.settings.accumulate,
        clip_grad=job.settings.clip_grad,
        context=setup.context,
    )
    saved = time.monotonic()
    with Interrupts() as interrupts:
        _watch_last_update(job, training)
        for step in steps:
            setup.after_update(step)
            setup.recorder.step(training.epoch, step)
            count_update(training.sessions, step.seconds)
            if training.step == job.updates:
                training.cells = bconv.cell_statistics(training.network)
            _watch_last_update(job, training)
            due = distributed.is_main() and time.monotonic() - saved >= 60 * job.settings.checkpoint_minutes
            # All processes stop and save after the same update, or none does.
            stop, save = distributed.any_process([interrupts.received is not None, due])
            if stop or save:
                _save(job, training, setup.recorder)
                saved = time.monotonic()
            if stop:
                raise _make_stop(job, training, interrupts.received or signal.SIGTERM)


@contextmanager
def _planned(job: TrainingJob, training: Training, setup: _Setup) -> Iterator[_Setup | None]:
    """The setup of the next epoch: that of all epochs, or one of its own if epochs are planned; None without a plan."""
    if job.plan_epoch is None:
        yield setup
        return
    resumed = training.step > 0  # the history has the plan already
    plan = job.plan_epoch(training, setup.device)
    if plan is None:
        yield None
        return
    if plan.clusters and not resumed:
        setup.recorder.clusters(training.epoch, plan.clusters)
    rows = (((job.settings.seed, training.epoch), batch) for batch in job.planned(plan, training.step))
    with closing(_load_batches(job, training, setup.device, rows)) as batches:
        yield replace(
            setup, objective=plan.objective, batches=batches, context=plan.context, after_update=plan.after_update
        )


def _load_batches(
    job: TrainingJob,
    training: Training,
    device: torch.device,
    seeded_rows: Iterable[tuple[tuple[int, ...], np.ndarray]],
) -> Generator[Batch]:
    """The batches of these rows: the loader processes are started once, and prepare what follows early."""
    settings = job.settings
    return load_seeded(
        job.splits.train.paths,
        _train_view(job),
        seeded_rows,
        workers=choose_workers(settings.workers, device),
        pin_for=device,
        progress=job.progress if training.step + training.epoch == 0 else None,  # one note per run is enough
    )


def _train_view(job: TrainingJob) -> TrainView:
    spec, settings = job.spec, job.settings
    return TrainView(
        spec.height,
        spec.width,
        spec.interpolation,
        crop=settings.crop,
        flip=settings.flip,
        pad=settings.pad,
        erase=settings.erase,
    )


def _seeded_rows(job: TrainingJob, epoch: int, step: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The augmentation seed and the rows of each batch from update `step` of `epoch` to the end of the run."""
    for number in range(epoch, job.settings.epochs):
        for rows in job.batches(number, step if number == epoch else 0):
            yield (job.settings.seed, number), rows


def _start_epoch(job: TrainingJob, training: Training, device: torch.device) -> None:
    """Set the latent states and the generators for the next update."""
    if not training.step:
        bconv.reset_memory(training.network)
    elif training.generators:
        checkpoint.restore_generators(training)
        return
    seed = (job.settings.seed, training.epoch, distributed.rank(), training.step)
    seed_generators(device, int(np.random.SeedSequence(seed).generate_state(1)[0]))


def _watch_last_update(job: TrainingJob, training: Training) -> None:
    """Have the cells record their gates if the next update is the last of the epoch."""
    bconv.watch_cells(training.network, training.step + 1 == job.updates)


def _wrap_network(job: TrainingJob, training: Training) -> nn.Module:
    """The network, its backbone frozen or not, wrapped for several processes and compiled if requested.

    Valid while the same weights are trained.
    """
    settings = job.settings
    optim.freeze_backbone(training.network, training.epoch < settings.freeze_epochs)
    if job.plan_epoch is not None or job.splits.unlabelled:
        optim.freeze_classifier(training.network)
    forward: nn.Module = training.network
    if distributed.active():
        if settings.sync_bn:
            from timm.layers.norm_act import convert_sync_batchnorm

            # Keeps parameters and names; torch's own loses the activations that timm's batch norms include.
            convert_sync_batchnorm(training.network)  # type: ignore[no-untyped-call]
        # Without cross-entropy the classifier gets no gradient, for which the other processes would wait.
        forward = DistributedDataParallel(forward, find_unused_parameters="ce" not in settings.loss.split("+"))
    return torch.compile(forward) if settings.compile else forward  # type: ignore[return-value]


def _objective_labels(job: TrainingJob) -> np.ndarray:
    """(N,) the class of each row of the training set, or for objectives other than the loss of the settings the row."""
    train = job.splits.train
    return np.arange(len(train)) if job.objective or job.plan_epoch else train.labels()


def build_objective(job: TrainingJob, training: Training, device: torch.device) -> Objective:
    """The loss of the job's settings, or the job's own objective on `device`, which may contain it.

    What the loss keeps between batches is in the extra state of the training.
    """
    begun = training.epoch or training.step
    checkpoint = job.run.checkpoint if begun else None
    loss = losses.find(job.settings.loss, job.settings.model_dump(), training.extra, checkpoint)
    return job.objective(device, loss) if job.objective else lambda output, labels, images: loss(output, labels)


def _note_patience(job: TrainingJob) -> None:
    settings = job.settings
    if settings.patience and not (job.splits.has_test and 0 < settings.evaluate_every < settings.epochs):
        job.progress.note(f"patience = {settings.patience} has no effect: no epoch but the last is evaluated")


def _out_of_patience(job: TrainingJob, training: Training) -> bool:
    patience = job.settings.patience
    if not patience or training.stale < patience:
        return False
    job.progress.note(f"early stop after epoch {training.epoch}: {training.stale} evaluations without a better mAP")
    return True


def _save(job: TrainingJob, training: Training, recorder: Recorder) -> None:
    training.history_bytes = recorder.flush()
    checkpoint.save(training, job.run.checkpoint)


def _make_stop(job: TrainingJob, training: Training, number: int) -> Stopped:
    return Stopped(
        f"{signal.Signals(number).name}: stopped after update {training.step} of {job.updates} in epoch "
        f"{training.epoch + 1} of {job.settings.epochs}. {job.run.checkpoint} is written.",
        128 + number,
    )
