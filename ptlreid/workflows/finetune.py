"""`ptlreid finetune`: a dataset and a network to a run folder with weights and scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptlreid import distributed, files, models
from ptlreid.errors import CheckpointError, DataError, PtlreidError
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder, test_set_digest
from ptlreid.samplers import IdentitySampler, ShuffleSampler
from ptlreid.settings import EvaluateSettings, FinetuneSettings

if TYPE_CHECKING:
    import torch

    from ptlreid.engine.fit import Objective


def finetune(
    config: FinetuneSettings,
    splits: Splits,
    run: RunFolder,
    progress: Progress,
    *,
    objective: Callable[[torch.device], Objective] | None = None,
    depends: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The metrics of the finished run, which are in `run.metrics` too.

    A run that is finished is left as it is, without importing torch; one that was begun with the same settings
    goes on where its checkpoint left it. `objective`: what is minimised on a device, the loss of `config` by default.
    `depends`: digests of what the run depends on beside settings and images. Raises `OptionError` when the folder
    holds a run with other settings, images or such digests, `CheckpointError` when another process trains in it,
    `DataError` when the training images do not fill one update, and `Stopped` when a signal asked for an end.
    """
    config = resolve_size(config)
    sampler = build_sampler(config, splits)
    with distributed.process_group(config.device), _alone(run):
        finished = distributed.run_on_main(lambda: _finished(config, splits, run, depends))
        if finished is not None:
            progress.note(f"{run.path} is finished: reused, nothing trained")
            metrics = _of_this_test_set(finished, config, splits, run, progress)
            if config.report and (metrics != finished or not distributed.run_on_main(run.report.is_file)):
                _report(config, splits, run, progress)
            return metrics

        from ptlreid.workflows.training import train
        from ptlreid.workflows.training_job import TrainingJob

        metrics = train(TrainingJob(config, splits, sampler, run, progress, objective=objective, depends=depends))
        if config.report:
            _report(config, splits, run, progress)
        return metrics


def build_sampler(config: FinetuneSettings, splits: Splits) -> ShuffleSampler | IdentitySampler:
    """This process's sampler, as `config` asks; `DataError` when the training images do not fill one update."""
    sampler: ShuffleSampler | IdentitySampler
    if config.images_per_identity:
        labels = splits.train.labels()
        sampler = IdentitySampler.of_batch(labels, config.batch_size, config.images_per_identity, config.seed)
    else:
        sampler = ShuffleSampler(len(splits.train), config.batch_size, config.seed)
    if distributed.world_size() > 1:
        sampler = replace(sampler, rank=distributed.rank(), ranks=distributed.world_size())
    if len(sampler) < config.accumulate:
        raise DataError(
            f"{len(splits.train)} training images make {len(sampler)} batches an epoch, and an update takes "
            f"{config.accumulate}. Lower --batch-size or `accumulate`, or choose a larger dataset."
        )
    return sampler


def resolve_size(config: FinetuneSettings) -> FinetuneSettings:
    """The settings with the image's height and width filled in: the backbone's own where none were given."""
    if config.height is not None and config.width is not None:
        return config
    height, width = models.find(config.backbone).input_size
    return config.model_copy(update={"height": config.height or height, "width": config.width or width})


def _finished(
    config: FinetuneSettings, splits: Splits, run: RunFolder, depends: Mapping[str, str] | None
) -> dict[str, Any] | None:
    """The metrics of a run that is finished, None where there is something to do."""
    run.check(config, splits, depends)
    if not run.finished:
        return None
    metrics = files.read_json(run.metrics)
    if not isinstance(metrics, dict):
        raise DataError(f"{run.metrics}: no JSON object, expected scores. Remove it and run the command again.")
    return metrics


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    """While the block runs, no other process trains in the run's folder: `CheckpointError` where one does.

    The main process holds a lock of the operating system, which ends with it, however that ends. There is none on
    Windows, and none on a disk without locks. A run that is finished needs none, as it is read.
    """
    with ExitStack() as held:
        distributed.run_on_main(lambda: None if run.finished else _lock(run, held))
        yield


def _lock(run: RunFolder, held: ExitStack) -> None:
    """Lock the run's folder until `held` ends; the lock's file goes then, and so does a folder with nothing in it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    while True:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            stream = run.lock.open("w")
        except OSError as error:
            advice = "Check that the folder may be written to, then run the command again."
            raise PtlreidError(f"{run.lock}: cannot be written ({error.strerror or error}). {advice}") from error
        try:
            # Not flock: processes that load images would inherit it, and keep it for a while when this one is killed.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            stream.close()
            raise CheckpointError(
                f"{run.path}: another process trains this run now, and only one at a time can. Wait until it has "
                "ended, and the same command goes on or reuses the run; or give this one another --name."
            ) from None
        except OSError:  # a file system without locks
            pass
        if run.lock.exists() and os.path.samestat(os.fstat(stream.fileno()), run.lock.stat()):
            held.enter_context(stream)
            held.callback(_unlock, run)
            return
        stream.close()  # it was removed by the process before, which has ended


def _unlock(run: RunFolder) -> None:
    run.lock.unlink(missing_ok=True)  # still locked: who opened it meanwhile sees that it is gone
    with suppress(OSError):
        run.path.rmdir()


def _of_this_test_set(
    metrics: dict[str, Any], config: FinetuneSettings, splits: Splits, run: RunFolder, progress: Progress
) -> dict[str, Any]:
    """The metrics of a finished run, its weights scored anew where the test set has changed since."""
    from ptlreid.workflows.evaluate import evaluate_run

    before = metrics.get("test_images")  # runs of before it was written down are taken on trust
    now = distributed.run_on_main(lambda: test_set_digest(splits)) if before and splits.has_test else before
    if now == before:
        return metrics
    progress.note(f"{run.path}: the test set has changed since, scored anew")
    settings = EvaluateSettings(root=config.root, device=config.device, workers=config.workers)
    metrics = metrics | {"test_images": now, **evaluate_run(run, splits, settings, progress).summary()}
    distributed.run_on_main(lambda: _rewrite(run.metrics, metrics))
    return metrics


def _rewrite(file: Path, metrics: dict[str, Any]) -> None:
    """Write new scores of an old run: the file keeps its time, by which the run that ended last is found."""
    ended = file.stat()
    files.write_json(file, metrics)
    os.utime(file, ns=(ended.st_atime_ns, ended.st_mtime_ns))


def _report(config: FinetuneSettings, splits: Splits, run: RunFolder, progress: Progress) -> None:
    """Write the page of the finished run."""
    from ptlreid.settings.report import ReportSettings
    from ptlreid.workflows.report import write_report

    machine = {name: getattr(config, name) for name in ("root", "device", "workers")}
    write_report([run], ReportSettings(**machine), progress, splits=splits)
