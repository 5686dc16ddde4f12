"""Settings of an export."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from ptlreid.errors import OptionError
from ptlreid.settings.evaluate import EvaluateSettings
from ptlreid.settings.fields import COMMON, MAX_SEED, Option


class ExportSettings(EvaluateSettings):
    """A graph of one run for other programs, and the limits within which its features have to agree with the run's."""

    NO_OPTION: ClassVar[frozenset[str]] = frozenset(
        {
            *("amp", "dtype", "ap", "rerank", "rerank_k1", "rerank_k2", "rerank_lambda", "expand", "expand_alpha"),
            *("single_shot_samples", "ranklist_size", "per_camera", "cameras"),
        }
    )

    half: Annotated[bool, COMMON] = Field(False, description="Weights and arithmetic in float16.")
    with_preprocessing: Annotated[bool, COMMON] = Field(
        False, description="Take uint8 RGB pixels (batch, height, width, 3), and standardise them in the graph."
    )
    planar: bool = Field(
        False, description="--with-preprocessing: pixels as float32 (batch, 3, height, width), such as DeepStream's."
    )
    camera: Annotated[str | None, Option(common=True, default="all, as an input", metavar="CAMERA")] = Field(
        None, description="Only this camera of an adapted run: its number, or site for an unknown one."
    )
    images: Annotated[int, COMMON] = Field(
        512, ge=8, le=10_000_000, description="Test images that the graph is compared on, at least; whole identities."
    )
    full: Annotated[bool, COMMON] = Field(False, description="Compare on all test images.")
    min_cosine: Annotated[float | None, Option(common=True, default="0.9999, with --half 0.999")] = Field(
        None, ge=-1, le=1, description="Smallest cosine between the run's features of an image and the graph's."
    )
    max_difference: Annotated[float | None, Option(default="0.001, with --half 0.02")] = Field(
        None, ge=0, le=2, description="Largest difference of an image's features, relative to their length."
    )
    max_map_loss: Annotated[float, COMMON] = Field(
        0.1, ge=0, le=100, description="Largest loss of mAP on these images, in percentage points."
    )
    speed: bool = Field(True, description="Measure images per second, of the graph and of torch.")
    bootstrap: int = Field(
        1000, ge=0, le=1_000_000, description="Bootstrap resamples for 95% CIs on the card; 0: none."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed of the sample of images.")

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        if self.planar and not self.with_preprocessing:
            raise OptionError(
                "planar without with_preprocessing: expected both, as other graphs are planar anyway. Add "
                "--with-preprocessing, or leave --planar out."
            )
        return self

    @property
    def cosine_limit(self) -> float:
        """The smallest cosine that passes."""
        return self.min_cosine if self.min_cosine is not None else 0.999 if self.half else 0.9999

    @property
    def difference_limit(self) -> float:
        """The largest relative difference that passes."""
        return self.max_difference if self.max_difference is not None else 0.02 if self.half else 0.001
