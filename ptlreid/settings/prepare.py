"""Settings of synthetic datasets, of datasets of own images, and of packs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ptlreid.names import check_name
from ptlreid.settings.base import Settings
from ptlreid.settings.fields import COMMON, Option


class SyntheticSettings(Settings):
    """A synthetic dataset in the layout of Market-1501."""

    identities: Annotated[int, COMMON] = Field(128, ge=4, description="Identities, half of them for training.")
    cameras: Annotated[int, COMMON] = Field(6, ge=2, description="Cameras of the site.")
    images_per_camera: Annotated[int, COMMON] = Field(3, ge=2, description="Images per identity and camera.")
    height: Annotated[int, COMMON] = Field(128, ge=32, description="Image height in pixels.")
    width: Annotated[int, COMMON] = Field(64, ge=16, description="Image width in pixels.")
    seed: Annotated[int, COMMON] = Field(0, ge=0, description="Random seed.")


class OwnImagesSettings(Settings):
    """A dataset made from the user's own images."""

    name: Annotated[str | None, Option(common=True, default="the source's")] = Field(
        None, description="Name of your own images."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, description="Random seed.")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        return name if name is None else check_name(name, "dataset")

    test_share: Annotated[float, COMMON] = Field(0.5, gt=0, lt=1, description="Share of the identities for testing.")


class PackSettings(Settings):
    """The size of packed images, equal to the network's input size."""

    height: Annotated[int, COMMON] = Field(256, ge=1, description="Image height in pixels.")
    width: Annotated[int, COMMON] = Field(128, ge=1, description="Image width in pixels.")
