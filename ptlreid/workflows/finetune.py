"""`ptlreid finetune`: train a network on a dataset, into a run folder with weights and scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ptlreid import distributed, environment
from ptlreid.distributed import process_group
from ptlreid.engine.job import TrainingJob, build_pass, build_sampler, note_other_parts, resolve_size
from ptlreid.json_files import has_digest, write_json
from ptlreid.locks import lock_run
from ptlreid.precision import resolve_precision
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder, score_digests
from ptlreid.settings import FinetuneSettings, default_evaluation

if TYPE_CHECKING:
    import torch

    from ptlreid.engine.fit import Objective
    from ptlreid.images import Sampler
    from ptlreid.losses import Loss


S = TypeVar("S", bound=FinetuneSettings)


def finetune(
    settings: FinetuneSettings,
    splits: Splits,
    run: RunFolder,
    progress: Progress,
    *,
    objective: Callable[[torch.device, Loss], Objective] | None = None,
    depends: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The metrics of the finished run, also written to `run.metrics`.

    A finished run is reused without importing torch; an interrupted one resumes from its checkpoint. `objective`: makes
    the objective on a device from the loss of `settings`; by default that loss alone, which needs identities.
    `depends`: digests of the run's inputs other than settings and images. Raises `OptionError` if the folder holds a
    run with other settings, images or digests, `CheckpointError` if another process is training it, `DataError` if the
    training images do not fill one update, and `Stopped` after a signal.
    """
    settings = resolve_size(settings)
    sampler = _build_sampler(settings, splits, objective)

    def train_and_score(resolved: FinetuneSettings) -> dict[str, Any]:
        from ptlreid.engine import scoring
        from ptlreid.engine.training_run import train

        job = TrainingJob(resolved, splits, sampler, run, progress, objective=objective, depends=depends)
        return scoring.finish(job, train(job, scoring.score_epoch))

    return complete(settings, splits, run, progress, train_and_score, depends=depends)


def complete(
    settings: S,
    splits: Splits,
    run: RunFolder,
    progress: Progress,
    train: Callable[[S], dict[str, Any]],
    *,
    test: Splits | None = None,
    depends: Mapping[str, str] | None = None,
    score: Callable[[], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The metrics of a run, which is reused if it is finished; otherwise those that `train` returns, which writes them.

    `train` gets the settings with the precision that is used. `test`: with the test set, by default `splits` as well.
    `score`: the scores of the finished run; by default those of its last and averaged weights. Raises errors as
    `finetune`.
    """
    test = test or splits
    score = score or (lambda: _score_finished(run, test, settings, progress))
    with process_group(settings.device), _lock_unless_finished(run):
        settings = resolve_precision(settings)
        finished = distributed.run_on_main(lambda: _finished_metrics(settings, splits, run, depends, progress))
        if finished is not None:
            progress.note(f"{run.path} is finished: reused, nothing trained")
            metrics = _score_again_if_changed(finished, settings, test, run, progress, score=score)
            if settings.report and (metrics != finished or not distributed.run_on_main(run.report.is_file)):
                _write_report(settings, test, run, progress)
            return metrics
        metrics = train(settings)
        if settings.report:
            _write_report(settings, test, run, progress)
        return metrics


def evaluate_finished(run: RunFolder, splits: Splits, settings: FinetuneSettings, progress: Progress) -> dict[str, Any]:
    """The scores of the run's last weights, for `metrics.json`."""
    from ptlreid.evaluation import evaluate_run

    return evaluate_run(run, splits, default_evaluation(settings), progress).summary()


def _score_finished(run: RunFolder, splits: Splits, settings: FinetuneSettings, progress: Progress) -> dict[str, Any]:
    from ptlreid.evaluation import summarize_run

    return summarize_run(run, splits, default_evaluation(settings), progress)


def dry_run(
    settings: FinetuneSettings,
    splits: Splits,
    run: RunFolder,
    progress: Progress,
    *,
    objective: Callable[[torch.device, Loss], Objective] | None = None,
    depends: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The planned training, with estimates of memory and time, for JSON: see `estimate_training`.

    `objective`, `depends`: as of `finetune`. Raises `OptionError` if the folder holds a run with other settings, images
    or digests.
    """
    settings = resolve_precision(resolve_size(settings))
    run.check(settings, splits, depends)

    from ptlreid.engine.estimate import estimate_training

    sampler = _build_sampler(settings, splits, objective)
    return estimate_training(TrainingJob(settings, splits, sampler, run, progress, objective=objective))


def dry_run_all(
    pairs: Sequence[tuple[FinetuneSettings, RunFolder]],
    splits: Splits,
    progress: Progress,
    depends: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The plans of runs that differ in their seed only, estimated once: see `dry_run`."""
    check_all(pairs, splits, depends)
    plan = dry_run(pairs[0][0], splits, pairs[0][1], progress, depends=depends)
    return [plan | {"run": str(run.path), "settings": plan["settings"] | {"seed": one.seed}} for one, run in pairs]


def check_all(
    pairs: Sequence[tuple[FinetuneSettings, RunFolder]], splits: Splits, depends: Mapping[str, str] | None = None
) -> None:
    """Raise `OptionError` if a folder holds another run, for all of several runs before the first is trained."""

    resolved = [(resolve_precision(resolve_size(settings)), run) for settings, run in pairs]

    def check() -> None:
        for settings, run in resolved:
            run.check(settings, splits, depends)

    distributed.run_on_main(check)


def _build_sampler(
    settings: FinetuneSettings, splits: Splits, objective: Callable[[torch.device, Loss], Objective] | None
) -> Sampler:
    """The batches; with an objective of its own, a run may be trained on images without identities."""
    return build_pass(settings, splits) if objective and splits.unlabelled else build_sampler(settings, splits)


def _finished_metrics(
    settings: FinetuneSettings,
    splits: Splits,
    run: RunFolder,
    depends: Mapping[str, str] | None,
    progress: Progress,
) -> dict[str, Any] | None:
    """The metrics of a finished run; None for one that is not finished."""
    run.check(settings, splits, depends)
    if not run.finished:
        return None
    metrics = run.read_metrics()
    if not has_digest(run.metrics):
        progress.note(
            f"{run.metrics}: of version 0.1, without a digest of its content; its scores are used as they are"
        )
    if "environment" in metrics:
        note_other_parts(run, settings, environment.recorded_sessions(metrics["environment"]), progress)
    return dict(metrics)


# What scores are made with, by key of `score_digests`, as notes call a change of it.
_MADE_WITH = {
    "weights_digest": "the weights have changed",
    "averaged_digest": "the averaged weights have changed",
    "test_images": "the test set has changed",
}


@contextmanager
def _lock_unless_finished(run: RunFolder) -> Iterator[None]:
    """Hold the run's lock in the main process; `CheckpointError` where another process is training the run.

    A finished run is only read, and needs no lock.
    """
    with ExitStack() as held:
        distributed.run_on_main(lambda: None if run.finished else held.enter_context(lock_run(run.lock)))
        yield


def _score_again_if_changed(
    metrics: dict[str, Any],
    settings: FinetuneSettings,
    splits: Splits,
    run: RunFolder,
    progress: Progress,
    *,
    score: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """The metrics of a finished run; `score` makes its scores again if its weights or the test set have changed."""
    if not splits.has_test:
        return metrics
    digests = distributed.run_on_main(lambda: score_digests(run, splits))
    # Digests are missing in runs of older versions, which are trusted.
    changed = [_MADE_WITH[key] for key, digest in digests.items() if metrics.get(key, digest) != digest]
    if not changed and {"mAP", "mINP", "cmc"} <= set(metrics):
        return metrics
    progress.note(f"{run.path}: {' and '.join(changed) or 'scores are missing'}, scoring again")
    metrics = metrics | digests | score()
    if "environment" in metrics:  # the training's, as nothing was trained
        amp = default_evaluation(settings).amp
        metrics["environment"] = environment.with_extraction(metrics["environment"], amp)
    distributed.run_on_main(lambda: _rewrite_metrics(run.metrics, metrics))
    return metrics


def _rewrite_metrics(file: Path, metrics: dict[str, Any]) -> None:
    """Write new metrics with the old modification time, which determines the newest run."""
    stat = file.stat()
    write_json(file, metrics)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _write_report(settings: FinetuneSettings, splits: Splits, run: RunFolder, progress: Progress) -> None:
    """Write the page of the finished run."""
    from ptlreid.settings.report import ReportSettings
    from ptlreid.workflows.report import write_report

    machine = {name: getattr(settings, name) for name in ("root", "device", "workers")}
    write_report([run], ReportSettings(**machine), progress, splits=splits)
