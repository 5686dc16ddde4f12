"""Settings of feature extraction, of an evaluation, and of a comparison of runs."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ptlreid.errors import OptionError
from ptlreid.settings.base import DataSettings
from ptlreid.settings.fields import COMMON, MAX_BATCH, MAX_SEED, Option

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_MAX_BUDGET = 10**15

Which = Literal["last", "best", "averaged"]  # weights of a run


def parse_budget(text: str | None) -> int | None:
    """The bytes of a memory budget such as `2GB`; None for None."""
    if text is None:
        return None
    parsed = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?B)", text.strip().upper())
    size = float(parsed[1]) * _UNITS[parsed[2]] if parsed else 0
    if not 0 < size <= _MAX_BUDGET:
        raise OptionError(
            f"memory_budget = {text!r}: expected a number and a unit, such as 500MB or 2GB, up to 1000TB."
        )
    return int(size)


class ExtractionSettings(DataSettings):
    """How features are extracted with the weights of a run."""

    weights: Annotated[Which, COMMON] = Field("last", description="Weights of the run.")
    flip: Annotated[bool | None, Option(common=True, default="network's")] = Field(
        None, description="Add the features of the mirrored image."
    )
    normalize: Annotated[bool | None, Option(default="network's")] = Field(
        None, description="L2-normalise the features."
    )
    cameras: bool = Field(True, description="Use the statistics of cameras of an adapted run.")
    amp: Literal["off", "tf32", "bf16", "fp16"] = Field(
        "off", description="Precision of feature extraction; off: float32."
    )
    batch_size: int = Field(64, ge=1, le=MAX_BATCH, description="Images per batch of feature extraction.")
    dtype: Literal["float32", "float16"] = Field("float32", description="Precision of cached features.")


class EvaluateSettings(ExtractionSettings):
    """Retrieval evaluation of one run on one dataset, or of features from files."""

    data: Annotated[str | None, Option(common=True, default="that of the run")] = Field(
        None, description="Dataset: its name or folder."
    )
    protocol: Annotated[str | None, Option(common=True, default="the dataset's")] = Field(
        None, description="market, cloth-changing, cuhk03-classic, single-shot, any-image or any-camera."
    )
    metric: Annotated[Literal["euclidean", "cosine"], COMMON] = Field(
        "euclidean", description="Distance between features."
    )
    ap: Annotated[Literal["step", "trapezoid"], COMMON] = Field("step", description="Definition of average precision.")

    rerank: Annotated[bool, COMMON] = Field(False, description="k-reciprocal re-ranking.")
    rerank_k1: int = Field(20, ge=1, le=10_000, description="k1 of re-ranking: neighbours considered.")
    rerank_k2: int = Field(6, ge=1, le=10_000, description="k2 of re-ranking: neighbours averaged.")
    rerank_lambda: float = Field(0.3, ge=0, le=1, description="λ of re-ranking: weight of the distance itself.")
    expand: int = Field(0, ge=0, le=10_000, description="Query expansion: nearest images averaged; 0: off.")
    expand_alpha: float = Field(0.0, ge=0, le=100, description="Query expansion: power of the cosine weights.")
    single_shot_samples: Annotated[int | None, Option(default="exact expectation")] = Field(
        None, ge=1, le=100_000, description="Random galleries of a single-shot CMC."
    )

    per_camera: Annotated[bool, COMMON] = Field(False, description="Also score every pair of cameras.")
    bootstrap: Annotated[int, COMMON] = Field(
        0, ge=0, le=1_000_000, description="Bootstrap resamples for 95% CIs; 0: none."
    )
    ranklist_size: int = Field(10, ge=1, le=1_000_000, description="Length of the rank lists in --ranklist.")
    memory_budget: Annotated[
        str | None, Option(common=True, machine=True, default="at most 1.07GB", metavar="SIZE")
    ] = Field(None, description="Memory for ranking.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Random seed.")

    @property
    def budget_bytes(self) -> int | None:
        """The memory budget in bytes."""
        return parse_budget(self.memory_budget)

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        """`OptionError`, which pydantic lets through, for settings that contradict one another."""
        _ = self.budget_bytes
        if self.expand and self.metric != "cosine" and not self.rerank:
            raise OptionError(
                f"expand = {self.expand} with metric = {self.metric!r}: expected cosine, as expanded queries are "
                "L2-normalised. Add --metric cosine, or leave --expand out."
            )
        return self


def default_evaluation(settings: DataSettings) -> EvaluateSettings:
    """An evaluation with default settings, with the datasets, device and workers of `settings`."""
    return EvaluateSettings(root=settings.root, device=settings.device, workers=settings.workers)


class CompareSettings(EvaluateSettings):
    """Two or more runs on one dataset, each compared with the first."""

    NO_OPTION: ClassVar[frozenset[str]] = frozenset({"per_camera", "ranklist_size"})  # for a single run

    data: Annotated[str | None, Option(common=True, default="that of the runs")] = Field(
        None, description="Dataset: its name or folder."
    )
    bootstrap: Annotated[int, COMMON] = Field(
        2000, ge=1, le=1_000_000, description="Bootstrap resamples for the 95% CIs."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")
