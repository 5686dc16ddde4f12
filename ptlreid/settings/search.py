"""Settings of a search."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ptlreid.errors import OptionError
from ptlreid.settings.embed import ImagesSettings
from ptlreid.settings.evaluate import parse_budget
from ptlreid.settings.fields import COMMON, Option

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_POINT = re.compile(r"eer|(far|open-set)=\S+", re.IGNORECASE)  # an operating point of `ptlreid calibrate`


def _parse_time(text: str | None) -> datetime | None:
    """A time as a camera's own clock shows it, a date being its first moment."""
    return datetime.fromisoformat(text.strip()).replace(tzinfo=None) if text else None


class SearchSettings(ImagesSettings):
    """A search for people in a gallery of images."""

    top: Annotated[int, COMMON] = Field(20, ge=1, le=10_000, description="Gallery images listed for each query.")
    together: Annotated[bool, COMMON] = Field(False, description="All query images show one person.")
    combine: Annotated[Literal["mean", "max"], COMMON] = Field(
        "mean", description="With --together: mean of the L2-normalised features, or maximum similarity over images."
    )
    threshold: Annotated[str | None, Option(common=True, metavar="NUMBER")] = Field(
        None, description="Distance below which an image is a match; or eer, far=RATE or open-set=RATE, as calibrated."
    )
    metric: Annotated[Literal["euclidean", "cosine"] | None, Option(common=True, default="euclidean; mean: cosine")] = (
        Field(None, description="Distance between features.")
    )
    exclude_same_camera: Annotated[bool, COMMON] = Field(False, description="Leave out images by the query's camera.")
    exclude_query: Annotated[bool, COMMON] = Field(False, description="Leave out the query's own file.")
    camera: Annotated[list[str], COMMON] = Field([], description="Search images by these cameras only.")
    glob: Annotated[str | None, Option(common=True, metavar="GLOB")] = Field(
        None, description="Search images whose path matches only, such as '*/door/*'."
    )
    after: Annotated[str | None, Option(common=True, metavar="TIME")] = Field(
        None, description="Search images of this time or later, by their paths, such as 2024-05-01T12:30."
    )
    before: Annotated[str | None, Option(common=True, metavar="TIME")] = Field(
        None, description="Search images before this time, by their paths, such as 2024-05-02."
    )
    query_camera: Annotated[str | None, Option(metavar="NAME", default="by its name or path")] = Field(
        None, description="Camera of all query images."
    )
    exact: Annotated[bool, COMMON] = Field(False, description="With an index: search all its shards instead.")
    rerank: Annotated[bool, COMMON] = Field(False, description="k-reciprocal re-ranking within the gallery.")
    rerank_k1: int = Field(20, ge=1, le=10_000, description="k1 of re-ranking: neighbours considered.")
    rerank_k2: int = Field(6, ge=1, le=10_000, description="k2 of re-ranking: neighbours averaged.")
    rerank_lambda: float = Field(0.3, ge=0, le=1, description="λ of re-ranking: weight of the distance itself.")
    memory_budget: Annotated[
        str | None, Option(common=True, machine=True, default="at most 1.07GB", metavar="SIZE")
    ] = Field(None, description="Memory for ranking.")

    @property
    def budget_bytes(self) -> int | None:
        """The memory budget in bytes."""
        return parse_budget(self.memory_budget)

    @property
    def times(self) -> tuple[datetime | None, datetime | None]:
        """The first moment that is searched, and the first after it that is not; None: no limit."""
        return _parse_time(self.after), _parse_time(self.before)

    @property
    def averages(self) -> bool:
        """Whether a query is a mean of features."""
        return self.together and self.combine == "mean"

    @property
    def distance(self) -> Literal["euclidean", "cosine"]:
        """The metric in effect."""
        return "cosine" if self.averages or self.rerank else self.metric or "euclidean"

    @property
    def threshold_distance(self) -> float | None:
        """The threshold if it is a number; None for the name of an operating point, and for none."""
        return float(self.threshold) if self.threshold and _NUMBER.fullmatch(self.threshold) else None

    @field_validator("after", "before")
    @classmethod
    def _check_time(cls, text: str | None) -> str | None:
        try:
            _parse_time(text)
        except ValueError:
            raise OptionError(
                f"after or before = {text!r}: expected a date or a time, such as 2024-05-01 or 2024-05-01T12:30. "
                "Correct it."
            ) from None
        return text

    @field_validator("threshold")
    @classmethod
    def _check_threshold(cls, threshold: str | None) -> str | None:
        if threshold is None or _POINT.fullmatch(threshold):
            return threshold
        if not (_NUMBER.fullmatch(threshold) and 0 <= float(threshold) < math.inf):
            raise OptionError(
                f"threshold = {threshold!r}: expected a distance of 0 or more, such as 0.35, or a name of `ptlreid "
                "calibrate`, such as far=1e-3. Correct it."
            )
        return threshold

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        """`OptionError`, which pydantic lets through, for settings that contradict one another."""
        _ = self.budget_bytes
        if self.averages and self.metric == "euclidean":
            raise OptionError(
                "metric = 'euclidean' with together: expected cosine, as a mean is one of L2-normalised features. "
                "Leave --metric out, or add --combine max."
            )
        if self.rerank and self.metric == "euclidean":
            raise OptionError(
                "metric = 'euclidean' with rerank: expected cosine, as re-ranking compares L2-normalised features. "
                "Leave --metric out."
            )
        if self.rerank and self.threshold is not None and self.threshold_distance is None:
            raise OptionError(
                f"threshold = {self.threshold!r} with rerank: expected a number, as re-ranked distances depend on the "
                "gallery and are not calibrated. Leave one out."
            )
        if "combine" in self.model_fields_set and not self.together:
            raise OptionError(f"combine = {self.combine!r} without together: expected both. Add --together.")
        return self
