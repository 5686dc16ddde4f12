"""The training of one run, from its start or its checkpoint to weights and scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptlreid import features, files, losses, models
from ptlreid.config import EvaluateConfig, FinetuneConfig
from ptlreid.devices import choose_device, choose_workers
from ptlreid.engine import checkpoint, optim
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import train_epoch
from ptlreid.engine.history import History
from ptlreid.images import Sampler, load_batches
from ptlreid.models import weights
from ptlreid.models.bconv import reset_memory
from ptlreid.models.network import Network
from ptlreid.outputs import NetworkSpec
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.retrieval import protocols
from ptlreid.retrieval.metrics import evaluate
from ptlreid.runs import RunFolder, find_run
from ptlreid.views import EvalView, TrainView
from ptlreid.workflows.evaluate import evaluate_run


@dataclass(frozen=True)
class Job:
    """What is trained, on what, where it is kept and to whom it reports. Nothing here changes in training."""

    config: FinetuneConfig
    splits: Splits
    sampler: Sampler
    run: RunFolder
    progress: Progress

    @property
    def spec(self) -> NetworkSpec:
        """The network, with a class for each identity of the training set."""
        config = self.config
        classes = int(self.splits.train.labels().max()) + 1
        assert config.height is not None and config.width is not None, "resolved before the run begins"
        return NetworkSpec(config.backbone, config.ptl, config.memory, classes, config.height, config.width)


def train(job: Job) -> dict[str, Any]:
    """The metrics of the run, written last; a checkpoint in the run folder is continued."""
    device = choose_device(job.config.device)
    training = _begin(job, device)
    job.run.claim(job.config, job.splits)
    _epochs(job, training, device)
    weights.save(training.network, job.spec, job.run.weights())
    return _finish(job, training)


def _begin(job: Job, device: torch.device) -> Training:
    """The training state at the start, or where the run's checkpoint left it."""
    config = job.config
    network = models.build(job.spec, config.seed)
    if not job.run.checkpoint.is_file():
        _initialise(network, job)
    network.to(device)
    optimizer = optim.make(
        config.optimizer, network, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    training = Training(network, optimizer, optim.step_decay(optimizer, config.decay_every, config.decay_factor))
    if job.run.checkpoint.is_file():
        checkpoint.load(training, job.run.checkpoint)
        job.progress.note(f"{job.run.path}: continued after epoch {training.epoch}")
    return training


def _initialise(network: Network, job: Job) -> None:
    init, backbone = job.config.init, job.config.backbone
    if init == "none":
        return
    if init == "imagenet":
        loaded = weights.load_imagenet(network, backbone)
    elif Path(init).is_file():
        loaded = weights.load_file(network, Path(init), backbone)
    else:
        loaded = weights.load_file(network, find_run(job.run.path.parent, init).weights(), backbone)
    job.progress.note(f"start from {init}: {loaded}")


def _epochs(job: Job, training: Training, device: torch.device) -> None:
    """Train what is left of the epochs, each ending in a checkpoint."""
    config, sampler = job.config, job.sampler
    workers = choose_workers(config.workers, device)
    view = TrainView(job.spec.height, job.spec.width, config.flip, config.pad, config.erase)
    labels = torch.from_numpy(job.splits.train.labels()).to(device)
    loss = losses.find(config.loss, config.model_dump())
    title, steps = f"train {job.run.path.name}", config.epochs * len(sampler)
    with (
        History(job.run.history, keep=training.history_bytes) as history,
        job.progress.task(title, steps) as advance,
        torch.random.fork_rng(),  # what dropout draws is ours, and the caller's generator stays as it was
    ):
        for epoch in range(training.epoch, config.epochs):
            reset_memory(training.network)
            rows, seed = sampler.epoch(epoch), (config.seed, epoch)
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            batches = load_batches(job.splits.train, view, rows, seed=seed, workers=workers)
            for step in train_epoch(training.network, batches, labels, loss, training.optimizer):
                history.add("step", epoch=epoch, **asdict(step))
                status = f"epoch {epoch + 1}/{config.epochs}, loss {step.loss:.3f}"
                advance(epoch * len(sampler) + step.step + 1, status=status)
            training.schedule.step()
            training.epoch = epoch + 1
            _evaluate_epoch(job, training, history, device)
            training.history_bytes = history.flush()
            checkpoint.save(training, job.run.checkpoint)


def _evaluate_epoch(job: Job, training: Training, history: History, device: torch.device) -> None:
    """Scores in the middle of training, where they are due; the last epoch's are made from the finished run."""
    config, splits, network = job.config, job.splits, training.network
    due = config.evaluate_every and training.epoch % config.evaluate_every == 0
    if not due or training.epoch == config.epochs or not splits.has_test:
        return
    view, workers = EvalView(job.spec.height, job.spec.width), choose_workers(config.workers, device)
    query, gallery = (
        features.extract(network, part, view, device=device, workers=workers) for part in (splits.query, splits.gallery)
    )
    scores = evaluate(query, gallery, protocols.find(splits.protocol))
    history.add("epoch", epoch=training.epoch, **scores.summary())
    if scores.mean_ap > training.best:
        training.best = scores.mean_ap
        weights.save(network, job.spec, job.run.weights("best"))


def _finish(job: Job, training: Training) -> dict[str, Any]:
    """Score the last weights, keep them as the best where they are, and write the metrics that end the run."""
    metrics: dict[str, Any] = {"run": job.run.path.name, "data": job.config.data, "epochs": training.epoch}
    if job.splits.has_test:
        settings = EvaluateConfig(root=job.config.root, device=job.config.device, workers=job.config.workers)
        scores = evaluate_run(job.run, job.splits, settings, job.progress)
        metrics |= {"weights": "last", **scores.summary()}
        if scores.mean_ap > training.best:
            weights.save(training.network, job.spec, job.run.weights("best"))
    files.write_json(job.run.metrics, metrics)
    return metrics
