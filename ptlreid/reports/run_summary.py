"""The summary of a run: its settings, history and last scores, and its evaluation, if any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ptlreid.engine import history
from ptlreid.files import file_digest
from ptlreid.models.camera_statistics import own_share, read_cameras
from ptlreid.reports.elements import name_cameras
from ptlreid.retrieval.cluster_statistics import ClusterStatistics
from ptlreid.retrieval.distance import distance_blocks
from ptlreid.retrieval.pairs import Pairs
from ptlreid.retrieval.types import Retrieval, Scores
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings

SCORES = ("mAP", "CMC-1", "CMC-5", "CMC-10", "mINP")


@dataclass(frozen=True)
class EvaluatedRun:
    """The retrieval and the scores of an evaluated run; `settings`: how it was evaluated."""

    retrieval: Retrieval
    scores: Scores
    settings: EvaluateSettings

    @property
    def pairs(self) -> Pairs:
        """All pairs that the protocol allows, with their distances."""
        metric = self.settings.metric
        blocks = distance_blocks(self.retrieval, metric=metric, memory_budget=self.settings.budget_bytes)
        return Pairs(self.retrieval, blocks, metric)


@dataclass(frozen=True)
class Steps:
    """S training steps, (S,) each; NaN where the history has no value.

    `epochs`: epochs completed after the step, such as 1.5. `terms`: the terms of the loss, by name.
    `images_per_second`; `wait`: the share of the time spent waiting for images.
    """

    epochs: np.ndarray
    loss: np.ndarray
    lr: np.ndarray
    images_per_second: np.ndarray
    wait: np.ndarray
    terms: Mapping[str, np.ndarray]

    @classmethod
    def select(cls, lines: Sequence[Mapping[str, Any]]) -> Steps:
        """The steps among the lines of a history, which may have been written by an older version."""
        lines = [line for line in lines if line.get("kind") == "step"]
        per_epoch = 1 + max((line["step"] for line in lines), default=0)
        names = dict.fromkeys(name for line in lines for name in line.get("terms", {}))
        return cls(
            np.array([line["epoch"] + (line["step"] + 1) / per_epoch for line in lines]),
            _read_column(lines, "loss"),
            _read_column(lines, "lr"),
            _read_column(lines, "images_per_second"),
            _read_column(lines, "wait"),
            {name: _read_column([line.get("terms", {}) for line in lines], name) for name in names},
        )

    def __len__(self) -> int:
        return len(self.epochs)


@dataclass(frozen=True)
class Camera:
    """A camera that a run adapted to: its name, the images behind its statistics, and their share in what is used."""

    name: str
    images: int
    own_share: float


@dataclass(frozen=True)
class RunSummary:
    """One run. `settings`: by name; `data`: its training set; `metrics`: None until it is finished.

    `cameras`: those that it adapted to.
    `scores`: of an evaluation on the dataset `evaluated_on`; None without one, for the reason in `evaluation_error`.
    """

    name: str
    method: str
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any] | None
    evaluated_on: str
    scores: Scores | None = None
    evaluation_error: str = ""
    cameras: Sequence[Camera] = ()

    @classmethod
    def read(cls, run: RunFolder) -> RunSummary:
        """The summary of a run folder, of which only `config.toml` must exist; nothing is evaluated."""
        settings = run.settings()
        values = settings.model_dump(exclude_none=True)
        return cls(
            run.path.resolve().name,
            settings.method,
            values,
            run.read_manifest() if run.data.exists() else {},
            history.read(run.history) if run.history.exists() else [],
            run.read_metrics() if run.metrics.exists() else None,
            settings.data,
            cameras=_read_cameras(run) if "run" in values else (),
        )

    @property
    def adapted_from(self) -> str:
        """The run that this one adapted; empty for one that was trained with labels."""
        return str(self.settings.get("run", ""))

    @property
    def unmeasured(self) -> bool:
        """Whether it adapted to a dataset without a test set, and is finished: it has no scores."""
        return bool(self.adapted_from) and self.metrics is not None and "mAP" not in self.metrics

    @property
    def clusterings(self) -> list[tuple[int, ClusterStatistics]]:
        """The figures of the clusters that each epoch, from 1, was trained on."""
        lines = [line for line in self.history if line.get("kind") == "clusters"]
        names = [field.name for field in fields(ClusterStatistics)]
        return [(line["epoch"] + 1, ClusterStatistics(**{name: line[name] for name in names})) for line in lines]

    @property
    def steps(self) -> Steps:
        return Steps.select(self.history)

    @property
    def in_first_epoch(self) -> bool:
        """Whether there are steps, but no complete epoch."""
        begun = bool(self.history) and not self.metrics
        return begun and all(line.get("kind") != "epoch" and line["epoch"] == 0 for line in self.history)

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The evaluated epochs, and the final `metrics` if the history lacks them.

        Each has `epoch` and `mAP`, and `mINP`, `cmc` and those of the averaged weights if they were recorded.
        """
        lines = [line for line in self.history if line.get("kind") == "epoch" and "mAP" in line]
        last = self.metrics or {}
        if {"mAP", "epochs"} <= set(last) and last["epochs"] not in {line["epoch"] for line in lines}:
            scores = {key: last[key] for key in ("mAP", "mINP", "cmc", "averaged") if key in last}
            lines.append({"epoch": last["epochs"], **scores})
        return lines

    @property
    def averaged_evaluations(self) -> list[Mapping[str, Any]]:
        """As `evaluations`, of the averaged weights; empty for a run without them."""
        return [{"epoch": line["epoch"], **line["averaged"]} for line in self.evaluations if "averaged" in line]

    @property
    def headline_scores(self) -> Mapping[str, Any] | None:
        """mAP, mINP and CMC of the evaluation, else those from the end of training; None without either."""
        if self.scores:
            return self.scores.summary()
        return self.metrics if self.metrics and "mAP" in self.metrics else None


def _read_cameras(run: RunFolder) -> list[Camera]:
    """The cameras that the run adapted to; none until it is finished."""
    weights = run.weights()
    found = read_cameras(weights, file_digest(weights)) if weights.is_file() else None
    if found is None:
        return []
    counts = found.images.tolist()
    names = name_cameras(found.names)
    return [Camera(name, count, own_share(count)) for name, count in zip(names, counts, strict=True)]


def read_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """Those of `SCORES` that a summary has, as shares; missing ones, as in files of older versions, are left out."""
    cmc = scores.get("cmc") or {}
    values = {name: cmc.get(name.removeprefix("CMC-")) if "CMC" in name else scores.get(name) for name in SCORES}
    return {name: share for name, share in values.items() if isinstance(share, int | float)}


def _read_column(lines: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    values = (line.get(key) for line in lines)
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=np.float64)
