"""Settings of synthetic datasets, of datasets of own images, and of packs."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ptlreid.errors import OptionError
from ptlreid.names import check_name
from ptlreid.network_types import Interpolation
from ptlreid.settings.base import Settings
from ptlreid.settings.fields import COMMON, MAX_PIXELS, MAX_SEED, Option

_MAX_IMAGES = 1_000_000  # of a synthetic dataset: several times those of any real one


class SyntheticSettings(Settings):
    """A synthetic dataset in the layout of Market-1501."""

    identities: Annotated[int, COMMON] = Field(
        128, ge=4, le=100_000, description="Identities, half of them for training."
    )
    cameras: Annotated[int, COMMON] = Field(6, ge=2, le=1000, description="Cameras of the site.")
    images_per_camera: Annotated[int, COMMON] = Field(3, ge=2, le=1000, description="Images per identity and camera.")
    height: Annotated[int, COMMON] = Field(128, ge=32, le=MAX_PIXELS, description="Image height in pixels.")
    width: Annotated[int, COMMON] = Field(64, ge=16, le=MAX_PIXELS, description="Image width in pixels.")
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        """`OptionError`, which pydantic lets through, for more images than any dataset has."""
        images = self.identities * self.cameras * self.images_per_camera
        if images > _MAX_IMAGES:
            raise OptionError(
                f"--identities {self.identities} × --cameras {self.cameras} × --images-per-camera "
                f"{self.images_per_camera} are {images:,} images: expected at most {_MAX_IMAGES:,}. Lower one of them."
            )
        return self


Layout = Literal[
    "auto",
    "names",
    "identity",
    "identity/camera",
    "camera/identity",
    "*/identity",
    "*/identity/camera",
    "identity/*/camera",
    "split/names",
    "split/identity",
    "split/identity/camera",
    "split/camera/identity",
    "split/*/identity",
    "split/*/identity/camera",
    "split/identity/*/camera",
    "files",
    "camera",
    "*/camera",
    "*/*/camera",
]


def check_pattern(pattern: str, *, unlabelled: bool) -> str:
    """The regular expression of file names, if its groups are those that are known; `OptionError` otherwise.

    One of them is `pid`, or, if `unlabelled`, any.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            groups = re.compile(pattern).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        raise OptionError(
            f"pattern = {pattern!r}: not a regular expression ({error}). Correct it; see Python's module re."
        ) from None
    unknown = [name for name in groups if name not in ("pid", "camid", "split") and not name.startswith("camid_")]
    if unknown or (not groups if unlabelled else "pid" not in groups):
        fault = f"has a group {unknown[0]}" if unknown else f"has no group {'camid' if unlabelled else 'pid'}"
        raise OptionError(
            f"pattern = {pattern!r}: {fault}: expected (?P<pid>...) and, optionally, (?P<camid>...), "
            "(?P<camid_NAME>...) or (?P<split>...). Name its groups like that; with --unlabelled, training images "
            "need no pid."
        )
    return pattern


class OwnImagesSettings(Settings):
    """A dataset made from the user's own images."""

    name: Annotated[str | None, Option(common=True, default="the source's")] = Field(
        None, description="Name of your own images."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")
    test_share: Annotated[float, COMMON] = Field(0.5, gt=0, lt=1, description="Share of the identities for testing.")
    unlabelled: Annotated[bool, COMMON] = Field(False, description="Training images have no identities.")
    layout: Annotated[Layout | None, Option(common=True, default="auto", metavar="LAYOUT")] = Field(
        None, description="What the folders name, from the outermost; * is skipped."
    )
    pattern: Annotated[str | None, Option(common=True, metavar="REGEX")] = Field(
        None, description="Regular expression of the file names, with groups pid, camid and split."
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        return name if name is None else check_name(name, "dataset")

    @field_validator("layout")
    @classmethod
    def _forget_auto(cls, layout: Layout | None) -> Layout | None:
        return None if layout == "auto" else layout  # datasets of 0.1 were made without a layout

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, pattern: str | None, info: ValidationInfo) -> str | None:
        return pattern and check_pattern(pattern, unlabelled=bool(info.data.get("unlabelled")))

    @model_validator(mode="after")
    def _refuse_both(self) -> Self:
        if self.layout and self.pattern:
            raise OptionError("layout and pattern: expected one of them. Leave one out.")
        if self.layout and not self.unlabelled and "identity" not in self.layout and "names" not in self.layout:
            raise OptionError(
                f"layout = {self.layout!r} names no identities: expected one that does, such as identity/camera. "
                "Choose another, or add --unlabelled."
            )
        if self.unlabelled and "test_share" in self.model_fields_set:
            raise OptionError(
                "test_share divides identities, and with --unlabelled there are none to divide. Leave one out."
            )
        return self


class PackSettings(Settings):
    """The size and interpolation of packed images, equal to those of the network's images."""

    height: Annotated[int, COMMON] = Field(256, ge=1, le=MAX_PIXELS, description="Image height in pixels.")
    width: Annotated[int, COMMON] = Field(128, ge=1, le=MAX_PIXELS, description="Image width in pixels.")
    interpolation: Annotated[Interpolation, COMMON] = Field(
        "bilinear", description="Interpolation when images are resized."
    )
