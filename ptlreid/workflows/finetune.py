"""`ptlreid finetune`: a data set and a network to a run folder with weights and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ptlreid import distributed, files, models
from ptlreid.config import FinetuneConfig
from ptlreid.errors import DataError
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.samplers import Identities, Shuffled

if TYPE_CHECKING:
    import torch

    from ptlreid.engine.fit import Objective


def finetune(
    config: FinetuneConfig,
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
    holds a run with other settings, images or such digests, `DataError` when the training images do not fill one
    update, and `Stopped` when a signal asked for an end.
    """
    config = sized(config)
    sampler = batches(config, splits)
    with _joined(config):
        finished = distributed.from_main(lambda: _finished(config, splits, run, depends))
        if finished is not None:
            progress.note(f"{run.path} is finished: reused, nothing trained")
            return finished

        from ptlreid.workflows.job import Job
        from ptlreid.workflows.training import train

        return train(Job(config, splits, sampler, run, progress, objective=objective, depends=depends))


def batches(config: FinetuneConfig, splits: Splits) -> Shuffled | Identities:
    """This process's sampler, as `config` asks; `DataError` when the training images do not fill one update."""
    sampler: Shuffled | Identities
    if config.images_per_person:
        labels = splits.train.labels()
        sampler = Identities.of_batch(labels, config.batch_size, config.images_per_person, config.seed)
    else:
        sampler = Shuffled(len(splits.train), config.batch_size, config.seed)
    if distributed.ranks() > 1:
        sampler = replace(sampler, rank=distributed.rank(), ranks=distributed.ranks())
    if len(sampler) < config.accumulate:
        raise DataError(
            f"{len(splits.train)} training images make {len(sampler)} batches an epoch, and an update takes "
            f"{config.accumulate}. Lower --batch-size or `accumulate`, or choose a larger data set."
        )
    return sampler


def sized(config: FinetuneConfig) -> FinetuneConfig:
    """The settings with the image's height and width filled in: the backbone's own where none were given."""
    if config.height is not None and config.width is not None:
        return config
    height, width = models.find(config.backbone).input_size
    return config.model_copy(update={"height": config.height or height, "width": config.width or width})


def _finished(
    config: FinetuneConfig, splits: Splits, run: RunFolder, depends: Mapping[str, str] | None
) -> dict[str, Any] | None:
    """The metrics of a run that is finished, None where there is something to do."""
    run.check(config, splits, depends)
    return files.read_json(run.metrics) if run.finished else None


@contextmanager
def _joined(config: FinetuneConfig) -> Iterator[None]:
    """The processes that `torchrun` started, joined; torch is not imported where there is one."""
    if distributed.ranks() == 1 or distributed.active():
        yield
        return
    from ptlreid.devices import choose_device

    with distributed.together(choose_device(config.device).type):
        yield
