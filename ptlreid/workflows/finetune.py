"""`ptlreid finetune`: a data set and a network to a run folder with weights and scores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ptlreid import features, files, models
from ptlreid.config import EvaluateConfig, FinetuneConfig
from ptlreid.devices import choose_device, choose_workers
from ptlreid.engine import checkpoint, optim
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import train_epoch
from ptlreid.engine.history import History
from ptlreid.images import load_batches
from ptlreid.losses import ce
from ptlreid.models import weights
from ptlreid.models.bconv import reset_memory
from ptlreid.outputs import NetworkSpec
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.retrieval import protocols
from ptlreid.retrieval.metrics import evaluate
from ptlreid.runs import RunFolder, find_run
from ptlreid.samplers import Shuffled
from ptlreid.views import EvalView, TrainView
from ptlreid.workflows.evaluate import evaluate_run


def finetune(config: FinetuneConfig, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The metrics of the finished run, which are in `run.metrics` too.

    A run that is finished is left as it is; one that was begun with the same settings goes on after its last
    whole epoch. Raises `OptionError` when the folder holds a run with other settings, and `DataError` when the
    training images do not fill one batch.
    """
    sampler = Shuffled(len(splits.train), config.batch_size, config.seed)
    run.check(config, splits)
    if run.finished:
        progress.note(f"{run.path} is finished: reused, nothing trained")
        metrics: dict[str, Any] = files.read_json(run.metrics)
        return metrics
    device = choose_device(config.device)
    spec = network_spec(config, splits)
    training = _begin(config, spec, run, device, progress)
    run.claim(config, splits)
    _train(config, splits, sampler, training, run, progress)
    weights.save(training.network, spec, run.weights())
    return _finish(config, splits, spec, training, run, progress)


def network_spec(config: FinetuneConfig, splits: Splits) -> NetworkSpec:
    """The network that `config` asks for, with a class for each identity of the training set."""
    return NetworkSpec(
        backbone=config.backbone,
        ptl=config.ptl,
        memory=config.memory,
        num_classes=len(set(splits.train.labels())),
        height=config.height,
        width=config.width,
    )


def _begin(
    config: FinetuneConfig, spec: NetworkSpec, run: RunFolder, device: torch.device, progress: Progress
) -> Training:
    """The training state at the start, or where the run's checkpoint left it."""
    network = models.build(spec, config.seed)
    if not run.checkpoint.is_file():
        _initialise(network, config, run, progress)
    network.to(device)
    optimizer = optim.sgd(network, config.lr, config.momentum, config.weight_decay)
    training = Training(network, optimizer, optim.step_decay(optimizer, config.decay_every, config.decay_factor))
    if run.checkpoint.is_file():
        checkpoint.load(training, run.checkpoint)
        progress.note(f"{run.path}: continued after epoch {training.epoch}")
    return training


def _initialise(network: nn.Module, config: FinetuneConfig, run: RunFolder, progress: Progress) -> None:
    if config.init == "none":
        return
    if config.init == "imagenet":
        loaded = weights.load_imagenet(network, config.backbone)
    elif Path(config.init).is_file():
        loaded = weights.load_file(network, Path(config.init), config.backbone)
    else:
        start = find_run(run.path.parent, config.init)
        loaded = weights.load_file(network, start.weights(), config.backbone)
    progress.note(f"start from {config.init}: {loaded}")


def _train(
    config: FinetuneConfig,
    splits: Splits,
    sampler: Shuffled,
    training: Training,
    run: RunFolder,
    progress: Progress,
) -> None:
    """Train epoch by epoch, each ending in a checkpoint."""
    device = next(training.network.parameters()).device
    workers = choose_workers(config.workers, device)
    view = TrainView(config.height, config.width, config.flip)
    labels = torch.from_numpy(splits.train.labels()).to(device)
    history = History(run.history, keep=training.history_bytes)
    with progress.task(f"train {run.path.name}", config.epochs * len(sampler)) as advance:
        for epoch in range(training.epoch, config.epochs):
            reset_memory(training.network)
            seed = (config.seed, epoch)
            batches = load_batches(splits.train, view, sampler.epoch(epoch), seed=seed, workers=workers)
            for step in train_epoch(training.network, batches, labels, ce.loss, training.optimizer):
                history.add("step", epoch=epoch, **asdict(step))
                status = f"epoch {epoch + 1}/{config.epochs}, loss {step.loss:.3f}"
                advance(epoch * len(sampler) + step.step + 1, status=status)
            training.schedule.step()
            training.epoch = epoch + 1
            _evaluate_epoch(config, splits, training, run, history)
            training.history_bytes = history.flush()
            checkpoint.save(training, run.checkpoint)
    history.close()


def _evaluate_epoch(
    config: FinetuneConfig, splits: Splits, training: Training, run: RunFolder, history: History
) -> None:
    """Scores in the middle of training, where they are due; the last epoch's are made from the finished run."""
    due = config.evaluate_every and training.epoch % config.evaluate_every == 0
    if not due or training.epoch == config.epochs or not splits.has_test:
        return
    network = training.network
    device = next(network.parameters()).device
    view = EvalView(config.height, config.width)
    query, gallery = (
        features.extract(network, part, view, device=device, workers=choose_workers(config.workers, device))
        for part in (splits.query, splits.gallery)
    )
    scores = evaluate(query, gallery, protocols.find(splits.protocol))
    history.add("epoch", epoch=training.epoch, **scores.summary())
    if scores.mean_ap > training.best:
        training.best = scores.mean_ap
        weights.save(network, network_spec(config, splits), run.weights("best"))


def _finish(
    config: FinetuneConfig,
    splits: Splits,
    spec: NetworkSpec,
    training: Training,
    run: RunFolder,
    progress: Progress,
) -> dict[str, Any]:
    """Score the last weights, keep them as the best where they are, and write the metrics that end the run."""
    metrics: dict[str, Any] = {"run": run.path.name, "data": config.data, "epochs": training.epoch}
    if splits.has_test:
        settings = EvaluateConfig(root=config.root, device=config.device, workers=config.workers)
        scores = evaluate_run(run, splits, settings, progress)
        metrics |= {"weights": "last", **scores.summary()}
        if scores.mean_ap > training.best:
            weights.save(training.network, spec, run.weights("best"))
    files.write_json(run.metrics, metrics)
    return metrics
