"""Settings of an index over shards."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ptlreid.settings.base import Settings
from ptlreid.settings.evaluate import parse_budget
from ptlreid.settings.fields import COMMON, MAX_SEED, Option


class IndexSettings(Settings):
    """An index over the features in shards."""

    kind: Annotated[Literal["ivfpq", "hnsw", "flat"], COMMON] = Field(
        "ivfpq", description="Compressed lists, a graph of neighbours, or all features as they are."
    )
    metric: Annotated[Literal["euclidean", "cosine"], COMMON] = Field(
        "euclidean", description="Distance between features."
    )
    recall: Annotated[float, COMMON] = Field(
        0.95, gt=0, le=1, description="Share of the nearest 20 images that a search is to find."
    )
    code_bytes: Annotated[int | None, Option(default="a quarter of the width, at most 64")] = Field(
        None, ge=1, le=2048, description="ivfpq: bytes of an image's code; they divide the width."
    )
    num_lists: Annotated[int | None, Option(default="by the number of images")] = Field(
        None, ge=1, le=1_000_000, description="ivfpq: lists that images are divided into."
    )
    memory_budget: Annotated[
        str | None, Option(common=True, machine=True, default="the free memory", metavar="SIZE")
    ] = Field(None, description="Memory for the index.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Random seed.")

    @property
    def budget_bytes(self) -> int | None:
        """The memory budget in bytes."""
        return parse_budget(self.memory_budget)

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        _ = self.budget_bytes
        return self
