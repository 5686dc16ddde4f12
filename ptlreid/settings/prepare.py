"""Settings of drawn datasets, of the user's own images, and of packs."""

from __future__ import annotations

from pydantic import Field

from ptlreid.settings.base import Settings


class SyntheticSettings(Settings):
    """A drawn dataset in the layout of Market-1501."""

    identities: int = Field(128, ge=4, description="People, half for training and half for testing.")
    cameras: int = Field(6, ge=2, description="Cameras of the site.")
    images_per_camera: int = Field(3, ge=2, description="Images of each person by each camera.")
    height: int = Field(128, ge=32, description="Image height in pixels.")
    width: int = Field(64, ge=16, description="Image width in pixels.")
    seed: int = Field(0, ge=0, description="Seed of every random choice.")


class OwnImagesSettings(Settings):
    """The user's own images, made a dataset with a name."""

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name that own images get; by default the source's."
    )
    seed: int = Field(0, ge=0, description="Seed of every random choice.")
    test_share: float = Field(
        0.5, gt=0, lt=1, description="Share of the people in own images that are for testing, where no split is given."
    )


class PackSettings(Settings):
    """The size of packed images, which is that of the network's input."""

    height: int = Field(256, ge=1, description="Image height in pixels.")
    width: int = Field(128, ge=1, description="Image width in pixels.")
