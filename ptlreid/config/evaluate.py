"""Settings of an evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ptlreid.config.settings import DataSettings


class EvaluateConfig(DataSettings):
    """Retrieval evaluation of one run on one data set."""

    data: str | None = Field(None, description="Data set; by default the one that the run was trained on.")
    weights: Literal["last", "best"] = Field("last", description="Which weights of the run.")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="Distance between features.")
    ap: Literal["step", "trapezoid"] = Field("step", description="How precision is averaged over recall.")
    flip: bool | None = Field(None, description="Sum the features of image and mirror; by default as the network's.")
    normalize: bool | None = Field(None, description="Scale features to length 1; by default as the network's.")
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="Number format of the network's convolutions.")
    batch_size: int = Field(64, ge=1, description="Images per step of feature extraction.")
