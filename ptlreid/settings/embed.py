"""Settings of features of any images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ptlreid.errors import OptionError
from ptlreid.settings.evaluate import ExtractionSettings
from ptlreid.settings.fields import COMMON, Option
from ptlreid.settings.prepare import Layout, check_pattern


class ImagesSettings(ExtractionSettings):
    """Images that are used where they are, without `ptlreid prepare`."""

    skip_bad: Annotated[bool, COMMON] = Field(False, description="List images that cannot be read, and skip them.")
    layout: Annotated[Layout | None, Option(default="auto", metavar="LAYOUT")] = Field(
        None, description="What the folders name, from the outermost; * is skipped."
    )
    pattern: Annotated[str | None, Option(metavar="REGEX")] = Field(
        None, description="Regular expression of the file names, with groups pid and camid."
    )
    site: Annotated[str | None, Option(metavar="DATA")] = Field(
        None, description="Dataset whose cameras took the images, for the camera statistics of an adapted run."
    )

    @field_validator("layout")
    @classmethod
    def _forget_auto(cls, layout: Layout | None) -> Layout | None:
        return None if layout == "auto" else layout

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, pattern: str | None) -> str | None:
        return pattern and check_pattern(pattern, unlabelled=True)

    @model_validator(mode="after")
    def _refuse_both(self) -> Self:
        if self.layout and self.pattern:
            raise OptionError("layout and pattern: expected one of them. Leave one out.")
        return self


class EmbedSettings(ImagesSettings):
    """Features of any images with the weights of a run."""

    part: Annotated[Literal["train", "query", "gallery"] | None, Option(common=True, default="all")] = Field(
        None, description="Part of a prepared dataset."
    )
    shards: Annotated[int | None, Option(common=True, metavar="ROWS", default="one file")] = Field(
        None, ge=1, le=100_000_000, description="Write a folder of shards of so many images each."
    )
