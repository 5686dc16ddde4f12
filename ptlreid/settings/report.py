"""Settings of a report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ptlreid.settings.base import DataSettings
from ptlreid.settings.evaluate import EvaluateSettings


class ReportSettings(DataSettings):
    """A report of one run or of several."""

    data: str | None = Field(None, description="Dataset; by default the one that each run was trained on.")
    weights: Literal["last", "best"] = Field("last", description="Which weights of the run.")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="Distance between features.")
    queries: int = Field(12, ge=0, description="Rank lists of the worst queries, and as many of queries drawn by lot.")
    ranklist_size: int = Field(10, ge=1, le=50, description="Places of each rank list.")
    false_accept_rates: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.01, 0.001], description="Shares of false accepts to state thresholds for."
    )
    seed: int = Field(0, ge=0, description="Seed of the queries that are drawn.")

    def evaluation(self) -> EvaluateSettings:
        """The settings of the evaluation that the report shows, so that its features are those in the cache."""
        shared = {name: getattr(self, name) for name in ("root", "device", "workers", "data", "weights", "metric")}
        return EvaluateSettings.resolve(None, **shared)
