"""What is known of one run: its settings, its history, its last scores, and an evaluation where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptlreid import files
from ptlreid.engine import history
from ptlreid.errors import DataError
from ptlreid.reports.curves import Steps, evaluations
from ptlreid.retrieval.protocols import Protocol
from ptlreid.retrieval.types import Features, Scores
from ptlreid.runs import RunFolder


@dataclass(frozen=True)
class Retrieval:
    """The two sides of an evaluation, its protocol, its scores, and in words what was compared and how."""

    query: Features
    gallery: Features
    protocol: Protocol
    scores: Scores
    how: str = ""


@dataclass(frozen=True)
class Account:
    """One run. `settings`: by name; `data`: what it was trained on; `metrics`: None while it is not finished.

    `scores`: of an evaluation on the dataset `evaluated_on`; None where that could not be, and `missing` says why.
    """

    name: str
    method: str
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any] | None
    evaluated_on: str
    scores: Scores | None = None
    missing: str = ""

    @classmethod
    def read(cls, run: RunFolder) -> Account:
        """The account in the files of `run`, of which only the settings must be there; nothing is evaluated."""
        settings = run.settings()
        return cls(
            run.path.resolve().name,
            settings.method,
            settings.model_dump(exclude_none=True),
            _object(run.data) if run.data.is_file() else {},
            history.read(run.history) if run.history.is_file() else [],
            _object(run.metrics) if run.metrics.is_file() else None,
            settings.data,
        )

    @property
    def steps(self) -> Steps:
        return Steps.of(self.history)

    @property
    def in_first_epoch(self) -> bool:
        """Whether steps were done, but no epoch is whole."""
        begun = bool(self.history) and not self.metrics
        return begun and all(line.get("kind") == "step" and line["epoch"] == 0 for line in self.history)

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The evaluated epochs on the run's own dataset."""
        return evaluations(self.history, self.metrics)

    @property
    def summary(self) -> Mapping[str, Any] | None:
        """mAP, mINP and CMC: of the evaluation, or those that the run ended with."""
        if self.scores:
            return self.scores.summary()
        return self.metrics if self.metrics and "mAP" in self.metrics else None


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in the file; `DataError` for other JSON."""
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {content!r:.40}. Remove it and continue the run.")
    return content
