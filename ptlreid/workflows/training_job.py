"""What one training run is, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptlreid.images import Sampler
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings

if TYPE_CHECKING:
    import torch

    from ptlreid.engine.fit import Objective


@dataclass(frozen=True)
class TrainingJob:
    """What is trained, on what, where it is kept and to whom it reports. Nothing here changes in training.

    `objective`: makes what is minimised, on a device; None for the loss of `config`. `depends`: digests of what the
    run depends on beside settings and images.
    """

    config: FinetuneSettings
    splits: Splits
    sampler: Sampler
    run: RunFolder
    progress: Progress
    objective: Callable[[torch.device], Objective] | None = None
    depends: Mapping[str, str] | None = None

    @property
    def spec(self) -> NetworkSpec:
        """The network, with a class for each identity of the training set."""
        config = self.config
        classes = int(self.splits.train.labels().max()) + 1
        assert config.height is not None and config.width is not None, "resolved before the run begins"
        return NetworkSpec(config.backbone, config.ptl, config.memory, classes, config.height, config.width)

    @property
    def updates(self) -> int:
        """Updates of the weights in one epoch."""
        return len(self.sampler) // self.config.accumulate
