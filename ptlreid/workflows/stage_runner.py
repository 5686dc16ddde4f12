"""Trainings that build on one another. Each is a run folder whose name holds a digest of all that it depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptlreid import datasets
from ptlreid.errors import DataError
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder, training_manifest
from ptlreid.settings import DistillSettings, FinetuneSettings
from ptlreid.workflows.distill import complete_settings, dependency_digests, distill
from ptlreid.workflows.finetune import finetune, resolve_size


@dataclass(frozen=True)
class Stage:
    """One training: its settings, and the stages whose weights it starts from and learns from."""

    config: FinetuneSettings
    start: Stage | None = None
    teacher: Stage | None = None

    @property
    def key(self) -> str:
        """The same for two stages that are the same training of the same data."""
        parts = (stage.key if stage else "" for stage in (self.start, self.teacher))
        return json.dumps([type(self.config).__name__, self.config.model_dump(), *parts], sort_keys=True)

    def trainings(self) -> dict[str, Stage]:
        """This stage after all that it builds on, each training once, by its key."""
        before = [other.trainings() for other in (self.start, self.teacher) if other]
        return {key: stage for some in before for key, stage in some.items()} | {self.key: self}


class StageRunner:
    """Trains stages into run folders below `runs`, each once: what another plan has trained is reused.

    A run's name is that of any run, with a digest of settings, images, starting and teaching weights behind it.
    """

    def __init__(self, runs: Path, progress: Progress) -> None:
        self.runs, self.progress = runs, progress
        self._splits: dict[str, Splits] = {}
        self._manifests: dict[str, dict[str, Any]] = {}
        self._done: dict[str, RunFolder] = {}

    def splits(self, data: str, root: str) -> Splits:
        """The dataset called `data`, read once."""
        if data not in self._splits:
            self._splits[data] = datasets.load(data, Path(root))
        return self._splits[data]

    def find(self, stage: Stage) -> RunFolder | None:
        """The folder of a stage, whether it exists yet or not; None while what it builds on is not finished."""
        if stage.key in self._done:
            return self._done[stage.key]
        before = [self.find(other) for other in (stage.start, stage.teacher) if other]
        if not all(run and run.finished for run in before):
            return None
        return self._folder(self._settings(stage))

    def run(self, stage: Stage) -> RunFolder:
        """The finished run of a stage, after those that it builds on; what is there is reused, and said to be."""
        if stage.key not in self._done:
            for other in (stage.start, stage.teacher):
                if other:
                    self.run(other)
            config = self._settings(stage)
            folder, splits = self._folder(config), self.splits(config.data, config.root)
            if isinstance(config, DistillSettings):
                distill(config, splits, folder, self.progress)
            else:
                finetune(config, splits, folder, self.progress, depends=dependency_digests(config, self.runs))
            self._done[stage.key] = folder
        return self._done[stage.key]

    def _settings(self, stage: Stage) -> FinetuneSettings:
        """The settings of a stage with the names of the runs that it builds on, which are finished."""
        names = {"init": self.find(stage.start)} if stage.start else {}
        names |= {"teacher": self.find(stage.teacher)} if stage.teacher else {}
        config = stage.config.model_copy(update={name: run.path.name for name, run in names.items() if run})
        return (
            complete_settings(config, self.runs, self.progress)
            if isinstance(config, DistillSettings)
            else resolve_size(config)
        )

    def _folder(self, config: FinetuneSettings) -> RunFolder:
        """The run folder whose name tells what the run depends on: settings, images, and the weights it builds on."""
        if config.data not in self._manifests:
            self._manifests[config.data] = training_manifest(self.splits(config.data, config.root))
        settings = config.model_dump(exclude={"init", "teacher", *config.MACHINE})
        start = config.init if config.init in ("imagenet", "none") else ""  # the weights count, not their name
        content = [settings, start, dependency_digests(config, self.runs), self._manifests[config.data]]
        key = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
        what = config.default_name if config.epochs else f"{config.default_name}-start"
        return RunFolder(self.runs / f"{what}-{key}")


def missing_datasets(data: str, root: Path) -> list[str]:
    """The datasets in `data`, which may be several joined with `+`, that are not below `root`."""
    absent = []
    for name in [data] if datasets.is_path(data) else data.split("+"):
        try:
            datasets.find(name, root).folder(root)
        except DataError:
            absent.append(name)
    return absent
