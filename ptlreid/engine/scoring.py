"""The scores of a run: in the middle of training, and at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ptlreid import distributed, files
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.job import TrainingJob
from ptlreid.evaluation import evaluate, evaluate_run, extract_retrieval
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.runs import test_set_digest
from ptlreid.settings import EvaluateSettings
from ptlreid.views import EvalView


def in_training(
    job: TrainingJob, training: Training, device: torch.device, *, before: Callable[[], None]
) -> dict[str, Any]:
    """The scores after the epoch that has just been trained; empty where none are due.

    The last epoch's are not: they are made from the finished run. `before()` is called first where they are.
    """
    config, splits, network = job.settings, job.splits, training.network
    epoch = training.epoch + 1
    due = config.evaluate_every and epoch % config.evaluate_every == 0
    if not due or epoch == config.epochs or not splits.has_test:
        return {}
    before()
    distributed.broadcast_buffers(network)  # all extract with the network that is saved
    settings = EvaluateSettings(root=config.root, device=str(device), workers=config.workers)
    extractor = Extractor.from_network(network, EvalView(job.spec.height, job.spec.width), settings)
    scores = evaluate(extract_retrieval(extractor, splits), settings)
    training.stale += 1
    if scores.mean_ap > training.best:
        training.best, training.stale = scores.mean_ap, 0
        distributed.run_on_main(lambda: weights.save(network, job.spec, job.run.weights("best")))
    return scores.summary()


def finish(job: TrainingJob, training: Training) -> dict[str, Any]:
    """Score the last weights, keep them as the best where they are, and write the metrics that end the run."""
    metrics: dict[str, Any] = {"run": job.run.path.name, "data": job.settings.data, "epochs": training.epoch}
    if job.splits.has_test:
        settings = EvaluateSettings(root=job.settings.root, device=job.settings.device, workers=job.settings.workers)
        scores = evaluate_run(job.run, job.splits, settings, job.progress)
        test = distributed.run_on_main(lambda: test_set_digest(job.splits))
        metrics |= {"weights": "last", "test_images": test, **scores.summary()}
        if scores.mean_ap > training.best:
            distributed.run_on_main(lambda: weights.save(training.network, job.spec, job.run.weights("best")))
    distributed.run_on_main(lambda: files.write_json(job.run.metrics, metrics))
    return metrics
