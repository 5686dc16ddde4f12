"""Evaluation of a run, during training and at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptlreid import distributed, environment
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.job import TrainingJob
from ptlreid.evaluation import evaluate, extract_retrieval, summarize_run
from ptlreid.features import Extractor
from ptlreid.json_files import write_json
from ptlreid.models import weights
from ptlreid.models.network import Network
from ptlreid.retrieval.types import Scores
from ptlreid.runs import score_digests
from ptlreid.settings import default_evaluation
from ptlreid.views import EvalView


def score_epoch(job: TrainingJob, training: Training, *, before: Callable[[], None]) -> dict[str, Any]:
    """The scores after the epoch that was just trained; empty if no evaluation is due.

    Those of the averaged weights, if there are any, are under `averaged`; the best mAP is that of the others. None is
    due after the last epoch: `finish` evaluates the finished run. `before()` is called before an evaluation.
    """
    settings, splits, network, average = job.settings, job.splits, training.network, training.average
    epoch = training.epoch + 1
    due = settings.evaluate_every and epoch % settings.evaluate_every == 0
    if not due or epoch == settings.epochs or not splits.has_test:
        return {}
    before()
    scores = _score(network, job)
    training.stale += 1
    if scores.mean_ap > training.best:
        training.best, training.stale = scores.mean_ap, 0
        distributed.run_on_main(lambda: weights.save(network, job.spec, job.run.weights("best")))
    return scores.summary() | ({"averaged": _score(average.network, job).summary()} if average else {})


def _score(network: Network, job: TrainingJob) -> Scores:
    """The scores of a network in training on the test set."""
    distributed.broadcast_buffers(network)  # all processes extract with the network that is saved
    evaluation = default_evaluation(job.settings)
    view = EvalView(job.spec.height, job.spec.width, job.spec.interpolation)
    return evaluate(extract_retrieval(Extractor.from_network(network, view, evaluation), job.splits), evaluation)


def finish(job: TrainingJob, training: Training) -> dict[str, Any]:
    """Save the last weights, also as the best if they are, and the averaged ones if there are any.

    Then write the scores of both, which completes the run.
    """
    average = training.average
    distributed.run_on_main(lambda: weights.save(training.network, job.spec, job.run.weights()))
    if average:
        distributed.run_on_main(lambda: weights.save(average.network, job.spec, job.run.weights("averaged")))
    evaluation = default_evaluation(job.settings)
    metrics: dict[str, Any] = {"run": job.run.path.name, "data": job.settings.data, "epochs": training.epoch}
    if job.splits.has_test:
        scores = summarize_run(job.run, job.splits, evaluation, job.progress)
        digests = distributed.run_on_main(lambda: score_digests(job.run, job.splits))
        metrics |= {"weights": "last", **digests, **scores}
        if scores["mAP"] > training.best:
            distributed.run_on_main(lambda: weights.save(training.network, job.spec, job.run.weights("best")))
    metrics["environment"] = environment.summarize(training.sessions, amp=evaluation.amp)
    distributed.run_on_main(lambda: write_json(job.run.metrics, metrics))
    return metrics
