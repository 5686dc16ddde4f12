"""A training run as a value, with its image size and its sampler. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ptlreid import distributed, models
from ptlreid.errors import DataError
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.samplers import IdentitySampler, ShuffleSampler
from ptlreid.settings import FinetuneSettings

if TYPE_CHECKING:
    import torch

    from ptlreid.engine.fit import Objective
    from ptlreid.images import Sampler


@dataclass(frozen=True)
class TrainingJob:
    """The settings, data, sampler and run folder of one training run. Constant during training.

    `settings`: with a resolved image size. `objective`: builds the objective on a device; None for the loss of
    `settings`. `depends`: digests of what the run depends on besides settings and images.
    """

    settings: FinetuneSettings
    splits: Splits
    sampler: Sampler
    run: RunFolder
    progress: Progress
    objective: Callable[[torch.device], Objective] | None = None
    depends: Mapping[str, str] | None = None

    @property
    def spec(self) -> NetworkSpec:
        """The network, with a class for each identity of the training set."""
        settings = self.settings
        classes = int(self.splits.train.labels().max()) + 1
        assert settings.height is not None and settings.width is not None, "set by resolve_size"
        size = settings.height, settings.width
        return NetworkSpec(settings.backbone, settings.ptl, settings.memory, classes, *size, settings.interpolation)

    @property
    def updates(self) -> int:
        """Updates of the weights in one epoch."""
        return len(self.sampler) // self.settings.accumulate


def resolve_size(settings: FinetuneSettings) -> FinetuneSettings:
    """The settings with height and width filled in from the backbone where they were not given."""
    if settings.height is not None and settings.width is not None:
        return settings
    height, width = models.find(settings.backbone).input_size
    return settings.model_copy(update={"height": settings.height or height, "width": settings.width or width})


def build_sampler(settings: FinetuneSettings, splits: Splits) -> ShuffleSampler | IdentitySampler:
    """This process's sampler; `DataError` if the training images teach nothing or do not fill one update."""
    splits.require_train()
    sampler: ShuffleSampler | IdentitySampler
    if settings.images_per_identity:
        labels = splits.train.labels()
        sampler = IdentitySampler.from_batch_size(
            labels, settings.batch_size, settings.images_per_identity, settings.seed
        )
    else:
        sampler = ShuffleSampler(len(splits.train), settings.batch_size, settings.seed)
    if distributed.world_size() > 1:
        sampler = replace(sampler, rank=distributed.rank(), ranks=distributed.world_size())
    if len(sampler) < settings.accumulate:
        raise DataError(
            f"{len(splits.train)} training images make {len(sampler)} batches per epoch: expected at least "
            f"{settings.accumulate}, as many as one update takes. Lower --batch-size or `accumulate`, or choose a "
            "larger dataset."
        )
    return sampler
