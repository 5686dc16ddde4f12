"""The stages of a chain. Each is a run folder, whose name contains a digest of everything that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ptlreid import datasets
from ptlreid.adapt import source
from ptlreid.engine.job import resolve_size
from ptlreid.errors import DataError
from ptlreid.precision import resolve_precision
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder, name_run, training_manifest
from ptlreid.settings import AdaptSettings, ChainSettings, DistillSettings, FinetuneSettings
from ptlreid.transfer.distillation import dependency_digests, resolve_settings

# Trains a run to its end, or reuses it if it is finished: see workflows/chain.py.
Train = Callable[[FinetuneSettings, Splits, RunFolder, Progress], object]

S = TypeVar("S", bound=FinetuneSettings)


@dataclass(frozen=True)
class Stage:
    """One training run: its settings, the stage it is initialised from or adapts (`init`) and its `teacher` stage."""

    settings: FinetuneSettings
    init: Stage | None = None
    teacher: Stage | None = None

    @property
    def key(self) -> str:
        """Equal for two stages that train the same network on the same dataset."""
        parts = (stage.key if stage else "" for stage in (self.init, self.teacher))
        return json.dumps([type(self.settings).__name__, self.settings.model_dump(), *parts], sort_keys=True)

    def dependencies(self) -> dict[str, Stage]:
        """All stages that this one builds on, then itself, in training order, each once, by key."""
        earlier = [stage.dependencies() for stage in (self.init, self.teacher) if stage]
        return {key: stage for stages in earlier for key, stage in stages.items()} | {self.key: self}


def plan_stages(settings: ChainSettings) -> list[Stage]:
    """The stages of the chain, in order.

    With `std` there is one more: the last dataset again, for a plain student with the last stage as teacher. As in
    section 5.8, the student is initialised from the plain backbone that went through the earlier datasets.
    """
    stages = _link_stages(settings.stages())
    if settings.std:
        plain = _link_stages(settings.stages(ptl=False)[:-1])
        stages.append(Stage(settings.last_distilled(), init=plain[-1] if plain else None, teacher=stages[-1]))
    return stages


class StageRunner:
    """Trains stages into run folders below `runs`, each once: stages of other chains are reused.

    The name of a run is its default name, followed by a digest of settings, images, initial and teacher weights.
    """

    def __init__(self, runs: Path, progress: Progress) -> None:
        self.runs, self.progress = runs, progress
        self._splits: dict[str, Splits] = {}
        self._manifests: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._finished: dict[str, RunFolder] = {}

    def splits(self, data: str, root: str) -> Splits:
        """The dataset called `data`, loaded once."""
        if data not in self._splits:
            self._splits[data] = datasets.load(data, Path(root))
        return self._splits[data]

    def images(self, settings: FinetuneSettings) -> Splits:
        """The dataset of a stage as it is trained on: an adaptation may train another one along."""
        splits = self.splits(settings.data, settings.root)
        return source.training_images(settings, splits) if isinstance(settings, AdaptSettings) else splits

    def find(self, stage: Stage) -> RunFolder | None:
        """The folder of a stage, which may not exist yet; None until the stages that it builds on are finished."""
        if stage.key in self._finished:
            return self._finished[stage.key]
        settings = self.find_settings(stage)
        return None if settings is None else self._folder(settings)

    def find_settings(self, stage: Stage) -> FinetuneSettings | None:
        """The settings of a stage's run; None until the stages that it builds on are finished."""
        earlier = [self.find(other) for other in (stage.init, stage.teacher) if other]
        return self._resolve_settings(stage) if all(run and run.finished for run in earlier) else None

    def start(self, settings: ChainSettings, train: Train) -> RunFolder:
        """The network before the first stage: the run that this adapts, or an untrained one of 0 epochs."""
        first = settings.stages()[0]
        if isinstance(first, AdaptSettings):
            return source.find_source(first, self.runs)
        return self.run(Stage(first.model_copy(update={"epochs": 0})), train)

    def run(self, stage: Stage, train: Train) -> RunFolder:
        """The finished run of a stage: `train` is called for it, after the stages that it builds on."""
        if stage.key not in self._finished:
            for other in (stage.init, stage.teacher):
                if other:
                    self.run(other, train)
            settings = self._resolve_settings(stage)
            folder = self._folder(settings)
            train(settings, self.splits(settings.data, settings.root), folder, self.progress)
            self._finished[stage.key] = folder
        return self._finished[stage.key]

    def _resolve_settings(self, stage: Stage) -> FinetuneSettings:
        """The settings of a stage with the names of the finished runs that it builds on."""
        init = "run" if isinstance(stage.settings, AdaptSettings) else "init"
        runs = {init: self.find(stage.init)} if stage.init else {}
        runs |= {"teacher": self.find(stage.teacher)} if stage.teacher else {}
        settings = stage.settings.model_copy(update={name: run.path.name for name, run in runs.items() if run})
        if isinstance(settings, DistillSettings):
            return resolve_precision(resolve_settings(partial(_with, settings), self.runs, self.progress))
        if isinstance(settings, AdaptSettings):
            return resolve_precision(source.resolve_settings(partial(_with, settings), self.runs))
        return resolve_precision(resolve_size(settings))

    def _folder(self, settings: FinetuneSettings) -> RunFolder:
        """The run folder, named by a digest of settings, images and the weights that the run builds on."""
        adaptation = isinstance(settings, AdaptSettings)
        images = settings.data, settings.with_ if isinstance(settings, AdaptSettings) else None
        if images not in self._manifests:
            self._manifests[images] = training_manifest(self.images(settings))
        values = settings.model_dump(exclude={"init", "teacher", "run", *settings.MACHINE})
        init = settings.init if settings.init in ("imagenet", "none") else ""  # a run counts by its weights
        content = [values, init, stage_digests(settings, self.runs), self._manifests[images]]
        key = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
        name = settings.default_name if settings.epochs or adaptation else f"{settings.default_name}-start"
        return name_run(self.runs, f"{name}-{key}", settings)


def stage_digests(settings: FinetuneSettings, runs: Path) -> dict[str, str]:
    """Digests of the weights and the camera statistics that the run of a stage builds on, by name."""
    if isinstance(settings, AdaptSettings):
        return source.source_digests(settings, runs)
    return dependency_digests(settings, runs)


def missing_datasets(data: str, root: Path) -> list[str]:
    """The datasets in `data`, one or several joined by `+`, that are not below `root`, as `prepare` calls them."""
    missing = []
    for name in [data] if datasets.is_path(data) else data.split("+"):
        try:
            datasets.find(name, root).folder(root)
        except DataError:
            missing.append(name.removesuffix(datasets.UNLABELLED))
    return missing


def _with(settings: S, *, progress: Progress | None = None, **more: Any) -> S:
    """The settings with `more` values. A stage's recipe is among its settings already."""
    return settings.model_copy(update=more)


def _link_stages(settings: Sequence[FinetuneSettings]) -> list[Stage]:
    """A stage for each of `settings`, initialised from the previous one."""
    stages: list[Stage] = []
    for one in settings:
        stages.append(Stage(one, init=stages[-1] if stages else None))
    return stages
