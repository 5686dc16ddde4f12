"""A training run as a value, with its image size and its sampler. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptlreid import models
from ptlreid.distributed import own_part, world_size
from ptlreid.errors import DataError, OptionError
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.samplers import IdentitySampler, ShuffleSampler
from ptlreid.schemas import Facts
from ptlreid.settings import FinetuneSettings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ptlreid.engine.checkpoint import Training
    from ptlreid.engine.fit import Context, Objective, Step
    from ptlreid.images import Sampler
    from ptlreid.losses import Loss


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch trains on, where that is decided when it begins.

    `batches`: the rows of each batch over all processes. `objective`: its labels are the rows. `context`: makes the
    context in which the network computes its output for the rows of this process's part of a batch. `after_update`:
    called after each update. `clusters`: what the history records of the plan when the epoch begins, if anything.
    """

    batches: Sequence[np.ndarray]
    objective: Objective
    context: Context
    after_update: Callable[[Step], None]
    clusters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingJob:
    """The settings, data, sampler and run folder of one training run. Constant during training.

    `settings`: with a resolved image size. `objective`: builds the objective on a device from the loss of `settings`,
    with rows of the training set as labels; None for that loss alone. `depends`: digests of what the run depends on
    besides settings and images. `classes`: of the classifier that the run takes over with its initial weights; None for
    one class per identity of the training set. `plan_epoch`: makes the plan of the next epoch, or of the rest of one
    that a checkpoint interrupts, from the training state on a device; where it returns None, training ends. Without it,
    sampler and objective are the same in all epochs.
    """

    settings: FinetuneSettings
    splits: Splits
    sampler: Sampler
    run: RunFolder
    progress: Progress
    objective: Callable[[torch.device, Loss], Objective] | None = None
    depends: Mapping[str, str] | None = None
    classes: int | None = None
    plan_epoch: Callable[[Training, torch.device], EpochPlan | None] | None = None

    @property
    def spec(self) -> NetworkSpec:
        """The network, with a class for each identity of the training set unless `classes` states their number."""
        return self.settings.network(self.classes or int(self.splits.train.labels().max()) + 1)

    @property
    def updates(self) -> int:
        """Updates of the weights in one epoch."""
        return len(self.sampler) // self.settings.accumulate

    @property
    def images_per_process(self) -> int:
        """Images of a batch in each process."""
        return self.settings.batch_size // world_size()

    def batches(self, epoch: int, first_update: int) -> list[np.ndarray]:
        """This process's rows of the training set, for each batch of the epoch from update `first_update` on."""
        accumulate = self.settings.accumulate
        batches = self.sampler.epoch(epoch)[first_update * accumulate : self.updates * accumulate]
        return [own_part(batch) for batch in batches]

    def planned(self, plan: EpochPlan, first_update: int) -> list[np.ndarray]:
        """As `batches`, of a planned epoch."""
        first, last = first_update * self.settings.accumulate, self.updates * self.settings.accumulate
        return [own_part(batch) for batch in plan.batches[first:last]]


def resolve_size(settings: FinetuneSettings) -> FinetuneSettings:
    """The settings with height and width filled in from the backbone where they were not given."""
    if settings.height is not None and settings.width is not None:
        return settings
    height, width = models.find(settings.backbone).input_size
    return settings.model_copy(update={"height": settings.height or height, "width": settings.width or width})


def build_sampler(settings: FinetuneSettings, splits: Splits) -> ShuffleSampler | IdentitySampler:
    """The batches over all processes; `DataError` if the training images teach nothing or do not fill one update.

    `OptionError` if the processes cannot take equal parts of a batch.
    """
    _check_parts(settings.batch_size)
    splits.require_train()
    sampler: ShuffleSampler | IdentitySampler
    if settings.images_per_identity:
        labels = splits.train.labels()
        sampler = IdentitySampler.from_batch_size(
            labels, settings.batch_size, settings.images_per_identity, settings.seed
        )
    else:
        sampler = ShuffleSampler(len(splits.train), settings.batch_size, settings.seed)
    _require_update(sampler, settings, splits)
    return sampler


def build_pass(settings: FinetuneSettings, splits: Splits) -> ShuffleSampler:
    """As many batches as make one pass over the training images, of which identities are not needed: for epochs that
    are planned. Raises errors as `build_sampler`.
    """
    _check_parts(settings.batch_size)
    images = len(splits.train)
    if not settings.epochs:  # any number of images will do
        return ShuffleSampler(images, max(1, min(images, settings.batch_size)), settings.seed)
    sampler = ShuffleSampler(images, settings.batch_size, settings.seed)
    _require_update(sampler, settings, splits)
    return sampler


def _require_update(sampler: Sampler, settings: FinetuneSettings, splits: Splits) -> None:
    if len(sampler) < settings.accumulate:
        raise DataError(
            f"{len(splits.train)} training images make {len(sampler)} batches per epoch: expected at least "
            f"{settings.accumulate}, as many as one update takes. Lower --batch-size or `accumulate`, or choose a "
            "larger dataset."
        )


def note_other_parts(run: RunFolder, settings: FinetuneSettings, sessions: Iterable[Facts], progress: Progress) -> None:
    """Note if batch norm saw other parts of a batch in the `sessions` of the run than it would see here."""
    others = sorted({session["processes"] for session in sessions} - {world_size()})
    if others and settings.epochs and not settings.sync_bn:
        theirs = " and by ".join(_describe_parts(settings, number) for number in others)
        progress.note(
            f"{run.path}: trained by {theirs}, not by {_describe_parts(settings, world_size())}. Batch norm normalises "
            "the images of each process by themselves, so its statistics differ (--sync-bn: those of all processes)"
        )


def _describe_parts(settings: FinetuneSettings, processes: int) -> str:
    images = f"{settings.batch_size // processes} images of a batch"
    return f"{processes} processes with {images} each" if processes > 1 else f"1 process with {images}"


def _check_parts(batch_size: int) -> None:
    """Raise `OptionError` unless all processes get equal parts of a batch: batch norm needs two images in each."""
    processes = world_size()
    if batch_size % processes or batch_size < 2 * processes:
        raise OptionError(
            f"batch_size = {batch_size} is divided among {processes} processes: expected a multiple of {processes} "
            f"from {2 * processes} on. Give such a --batch-size, or start another number of processes."
        )
