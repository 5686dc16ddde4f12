"""Settings of an evaluation, and of comparing two."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ptlreid.errors import OptionError
from ptlreid.settings.base import DataSettings

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class EvaluateSettings(DataSettings):
    """Retrieval evaluation of one run on one dataset, or of features from files."""

    MACHINE: ClassVar[frozenset[str]] = DataSettings.MACHINE | {"memory_budget"}

    data: str | None = Field(None, description="Dataset; by default the one that the run was trained on.")
    weights: Literal["last", "best"] = Field("last", description="Which weights of the run.")
    protocol: str | None = Field(
        None, description="market, cuhk03-classic or any-camera; by default the dataset's, market for files."
    )
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="Distance between features.")
    ap: Literal["step", "trapezoid"] = Field("step", description="How precision is averaged over recall.")
    flip: bool | None = Field(None, description="Sum the features of image and mirror; by default as the network's.")
    normalize: bool | None = Field(None, description="Scale features to length 1; by default as the network's.")
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="Number format of the network's convolutions.")
    batch_size: int = Field(64, ge=1, description="Images per step of feature extraction.")
    dtype: Literal["float32", "float16"] = Field("float32", description="Number format in which features are cached.")

    rerank: bool = Field(False, description="Re-rank by k-reciprocal neighbours, on features of length 1.")
    rerank_k1: int = Field(20, ge=1, description="Neighbours that are looked at in re-ranking.")
    rerank_k2: int = Field(6, ge=1, description="Neighbours over which an image's encoding is averaged.")
    rerank_lambda: float = Field(0.3, ge=0, le=1, description="Share of the original distance in the re-ranked one.")
    expand: int = Field(0, ge=0, description="Nearest gallery images that are averaged into each query; 0: none.")
    expand_alpha: float = Field(0.0, ge=0, description="Power of the cosine that weighs them; 0 weighs all alike.")
    single_shot_samples: int | None = Field(
        None, ge=1, description="Seeded samples of a single-shot CMC; by default its exact expectation."
    )

    per_camera: bool = Field(False, description="Also score each query camera on each gallery camera alone.")
    bootstrap: int = Field(0, ge=0, description="Draws of people for 95% intervals, 2000 is usual; 0: none.")
    ranklist_size: int = Field(10, ge=1, description="Places in the rank list of each query.")
    memory_budget: str | None = Field(
        None,
        description="Memory for ranking, beside the features, such as 2GB; by default 1.07GB at most.",
    )
    seed: int = Field(0, ge=0, description="Seed of every random choice.")

    @property
    def budget_bytes(self) -> int | None:
        """The memory budget in bytes."""
        if self.memory_budget is None:
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?B)", self.memory_budget.strip().upper())
        if not found:
            raise OptionError(
                f"memory_budget = {self.memory_budget!r} is no amount of memory. Give a number and a unit, such as "
                "500MB or 2GB."
            )
        return int(float(found[1]) * _UNITS[found[2]])

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """`OptionError`, which pydantic lets through, for settings that contradict one another."""
        _ = self.budget_bytes
        if self.expand and self.metric != "cosine" and not self.rerank:
            raise OptionError(
                "expand makes new queries of length 1, which are compared by cosine. Add --metric cosine, or leave it."
            )
        return self


class CompareSettings(EvaluateSettings):
    """Two runs or more on one dataset, each against the first."""

    data: str | None = Field(None, description="Dataset; by default the one that all of the runs were trained on.")
    bootstrap: int = Field(2000, ge=1, description="Draws of people for the 95% intervals.")
