"""Settings of a report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ptlreid.settings.base import DataSettings
from ptlreid.settings.evaluate import EvaluateSettings, Which
from ptlreid.settings.fields import COMMON, MAX_SEED, Option


class ReportSettings(DataSettings):
    """A report on one run or on several."""

    data: Annotated[str | None, Option(common=True, default="that of each run")] = Field(
        None, description="Dataset: its name or folder."
    )
    weights: Annotated[Which, COMMON] = Field("last", description="Weights of the run.")
    metric: Annotated[Literal["euclidean", "cosine"], COMMON] = Field(
        "euclidean", description="Distance between features."
    )
    protocol: Annotated[str | None, Option(common=True, default="the dataset's")] = Field(
        None, description="Rules of the evaluation: market, cloth-changing and others, see `evaluate`."
    )
    queries: Annotated[int, COMMON] = Field(
        12, ge=0, le=1000, description="Rank lists of the worst and of random queries."
    )
    ranklist_size: Annotated[int, COMMON] = Field(10, ge=1, le=50, description="Length of each rank list.")
    false_accept_rates: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.01, 0.001], description="False-accept rates of the thresholds."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")

    def evaluation(self) -> EvaluateSettings:
        """The settings of the evaluation that the report shows, so that it reuses the cached features."""
        names = ("root", "device", "workers", "data", "weights", "metric", "protocol")
        return EvaluateSettings.resolve(None, **{name: getattr(self, name) for name in names})
