"""`ptlreid adapt`: adapt the network of a run to cameras whose images have no identities, as a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid import distributed
from ptlreid.adapt.source import find_source, read_source, source_digests, training_images
from ptlreid.engine.job import TrainingJob, build_pass
from ptlreid.errors import OptionError
from ptlreid.precision import resolve_precision
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder, score_digests
from ptlreid.settings import AdaptSettings, default_evaluation
from ptlreid.workflows import finetune as workflow

if TYPE_CHECKING:
    from ptlreid.adapt.rounds import Rounds
    from ptlreid.engine.checkpoint import Training


def adapt(settings: AdaptSettings, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The metrics of the finished run, also written to `run.metrics`; `settings` come from `resolve_settings`.

    As `finetune`: a finished run is reused, an interrupted one resumes. The identities of the training images are not
    used. If there is a test set, the metrics have its scores, and under `before` those of the run that is adapted.
    """
    depends = _dependencies(settings, run)
    images = training_images(settings, splits)

    def train(resolved: AdaptSettings) -> dict[str, Any]:
        from ptlreid.engine.training_run import train

        rounds, job = _prepare(resolved, splits, images, run, progress)
        training = train(job, _scoring(rounds, splits))
        return _finish(job, training, rounds, splits)

    def score() -> dict[str, Any]:
        return _scores(settings, splits, run, progress)

    return workflow.complete(settings, images, run, progress, train, test=splits, depends=depends, score=score)


def check_all(pairs: Sequence[tuple[AdaptSettings, RunFolder]], splits: Splits) -> None:
    """Raise `OptionError` if a folder holds another run, for all of several runs before the first is trained."""
    for settings, run in pairs:
        depends = _dependencies(settings, run)
        workflow.check_all([(settings, run)], training_images(settings, splits), depends)


def dry_run(settings: AdaptSettings, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The planned training, with estimates of memory and time, for JSON: see `estimate_training`."""
    settings = resolve_precision(settings)
    images = training_images(settings, splits)
    run.check(settings, images, _dependencies(settings, run))

    from ptlreid.engine.estimate import estimate_training

    _, job = _prepare(settings, splits, images, run, progress)
    plan = estimate_training(job)
    if settings.epochs:
        plan["not_counted"].append("camera statistics, features and clusters of each epoch")
    return plan


def _dependencies(settings: AdaptSettings, run: RunFolder) -> dict[str, str]:
    """The digests that the run depends on; `OptionError` if it would take the place of the run that is adapted."""
    runs = run.path.parent
    if find_source(settings, runs).path.resolve() == run.path.resolve():
        raise OptionError(
            f"{run.path} is the run to adapt: expected another folder for the result. Give another --name."
        )
    return source_digests(settings, runs)


def _prepare(
    settings: AdaptSettings, splits: Splits, images: Splits, run: RunFolder, progress: Progress
) -> tuple[Rounds, TrainingJob]:
    from ptlreid.adapt.rounds import Rounds

    runs = run.path.parent
    weights = read_source(settings, runs)
    site, rows = splits.without_identities().train, np.arange(len(splits.train), len(images.train))
    build_pass(settings, splits)  # a site without a batch of its own would have no part in the training
    rounds = Rounds(settings, site, images.train.select(rows) if len(rows) else None, run, progress)
    job = TrainingJob(
        settings,
        images,
        build_pass(settings, images),
        run,
        progress,
        depends=source_digests(settings, runs),
        classes=weights.spec.num_classes,
        plan_epoch=rounds.plan_epoch,
    )
    return rounds, job


def _scoring(rounds: Rounds, splits: Splits) -> Callable[..., dict[str, Any]]:
    """Scores the teacher after the epochs in which that is due, as `ScoreEpoch`."""

    def score_epoch(job: TrainingJob, training: Training, *, before: Callable[[], None]) -> dict[str, Any]:
        from ptlreid.evaluation import evaluate, extract_retrieval

        every, epoch = job.settings.evaluate_every, training.epoch + 1
        if not every or epoch % every or epoch == job.settings.epochs or not splits.has_test:
            return {}
        before()
        retrieval = extract_retrieval(rounds.extractor(*rounds.teacher(training)), splits)
        return evaluate(retrieval, default_evaluation(job.settings)).summary()

    return score_epoch


def _finish(job: TrainingJob, training: Training, rounds: Rounds, splits: Splits) -> dict[str, Any]:
    """Save the averaged weights with the statistics of the site's cameras, and write the metrics."""
    from ptlreid import environment
    from ptlreid.json_files import write_json
    from ptlreid.models import weights
    from ptlreid.models.camera_statistics import save_cameras

    run, settings = job.run, job.settings
    assert isinstance(settings, AdaptSettings)
    network, cameras = rounds.teacher(training)
    for doubt in () if settings.epochs else cameras.describe_doubts():
        job.progress.note(doubt)

    def save() -> None:
        weights.save(network, job.spec, run.weights())
        save_cameras(cameras, run.weights())

    distributed.run_on_main(save)
    metrics: dict[str, Any] = {"run": run.path.name, "data": settings.data, "epochs": training.epoch}
    if splits.has_test:
        digests = distributed.run_on_main(lambda: score_digests(run, splits))
        metrics |= {"weights": "last", **digests, **_scores(settings, splits, run, job.progress)}
    metrics["environment"] = environment.summarize(training.sessions, amp=default_evaluation(settings).amp)
    distributed.run_on_main(lambda: write_json(run.metrics, metrics))
    return metrics


def _scores(settings: AdaptSettings, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The scores of the run on the site's test set, and those of the run that was adapted."""
    source = find_source(settings, run.path.parent)
    before = workflow.evaluate_finished(source, splits, settings, progress)
    return {**workflow.evaluate_finished(run, splits, settings, progress), "before": before}
