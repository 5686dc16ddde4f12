"""`ptlreid finetune`: a data set and a network to a run folder with weights and scores."""

from __future__ import annotations

from typing import Any

from ptlreid import files, models
from ptlreid.config import FinetuneConfig
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.samplers import Identities, Shuffled


def finetune(config: FinetuneConfig, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The metrics of the finished run, which are in `run.metrics` too.

    A run that is finished is left as it is, without importing torch; one that was begun with the same settings
    goes on after its last whole epoch. Raises `OptionError` when the folder holds a run with other settings or
    images, and `DataError` when the training images do not fill one batch.
    """
    config = sized(config)
    sampler = batches(config, splits)
    run.check(config, splits)
    if run.finished:
        progress.note(f"{run.path} is finished: reused, nothing trained")
        metrics: dict[str, Any] = files.read_json(run.metrics)
        return metrics

    from ptlreid.workflows.training import Job, train

    return train(Job(config, splits, sampler, run, progress))


def batches(config: FinetuneConfig, splits: Splits) -> Shuffled | Identities:
    """The sampler that `config` asks for; `DataError` when the training images do not fill one batch."""
    if config.images_per_person:
        labels = splits.train.labels()
        return Identities.of_batch(labels, config.batch_size, config.images_per_person, config.seed)
    return Shuffled(len(splits.train), config.batch_size, config.seed)


def sized(config: FinetuneConfig) -> FinetuneConfig:
    """The settings with the image's height and width filled in: the backbone's own where none were given."""
    if config.height is not None and config.width is not None:
        return config
    height, width = models.find(config.backbone).input_size
    return config.model_copy(update={"height": config.height or height, "width": config.width or width})
