"""Settings of a calibration."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from ptlreid.errors import OptionError
from ptlreid.settings.evaluate import EvaluateSettings
from ptlreid.settings.fields import COMMON, MAX_SEED

Rate = Annotated[float, Field(gt=0, lt=1)]


class CalibrateSettings(EvaluateSettings):
    """Thresholds on the distance of one run, from the pairs of one dataset, or of features from files."""

    NO_OPTION: ClassVar[frozenset[str]] = frozenset(
        {
            *("ap", "rerank", "rerank_k1", "rerank_k2", "rerank_lambda", "expand", "expand_alpha"),
            *("single_shot_samples", "ranklist_size"),
        }
    )

    false_accept_rates: Annotated[list[Rate], COMMON] = Field(
        [0.01, 0.001, 0.0001], description="False-accept rates (FAR) of pairs."
    )
    open_set_rates: Annotated[list[Rate], COMMON] = Field(
        [0.1, 0.01, 0.001], description="False-alarm rates of searches for absent identities."
    )
    per_camera: Annotated[bool, COMMON] = Field(False, description="Also calibrate every pair of cameras.")
    bootstrap: Annotated[int, COMMON] = Field(
        2000, ge=1, le=1_000_000, description="Bootstrap resamples for the 95% CIs."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")

    @model_validator(mode="after")
    def _check_distance(self) -> Self:
        """`OptionError` for settings under which distances depend on other images than the two."""
        changed = [name for name in ("rerank", "expand") if getattr(self, name)]
        if changed:
            raise OptionError(
                f"{changed[0]} = {getattr(self, changed[0])}: expected none in a calibration, as such distances depend "
                "on the other images of the gallery, and a threshold would not hold for another. Leave it out."
            )
        return self
